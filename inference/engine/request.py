"""What a take is asked to be, and the sequence that asks a model for it."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Int
from torch import Tensor

from cat_tts import SamplingOptions, TTSConfig
from cat_tts.generation.frame_decoder import Continuation
from cat_tts.sequences.conversation import generation_rows, render_user
from cat_tts.sequences.formats import opening_rows
from cat_tts.sequences.rows import join_texts, positions, speaking_pace
from cat_tts.text.tokenizers import TextTokenizer
from inference.voices.voice import Voice

Mode = Literal["continuation", "reference"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """All that decides a take, checked; `dataclasses.replace` makes another seed of it."""

    text: str
    voice: Voice
    depth: int
    seed: int
    sampling: SamplingOptions
    mode: Mode
    min_frames: int
    """Not to stop before."""
    max_frames: int
    draft: Int[Tensor, "t k"] | None = None
    """Codes that are decided already, of the first codebooks."""


def request_rows(config: TTSConfig, text: TextTokenizer, request: Request) -> Int[Tensor, "n c"]:
    """Everything before the first new frame."""
    codes = request.voice.codes
    if request.mode == "reference":
        return generation_rows(config, text, render_user(request.text, [codes]), [codes])
    return opening_rows(config, text, join_texts(request.voice.text, request.text), codes)


def continuation(config: TTSConfig, text: TextTokenizer, request: Request) -> Continuation:
    """The request as the frame decoder takes it; text moves at the pace of the prompt."""
    voice, rows = request.voice, request_rows(config, text, request)
    pace = speaking_pace(config, text.encode(voice.text), len(voice.codes))
    return Continuation(
        rows=rows,
        positions=positions(config, rows, pace),
        depth=request.depth,
        seed=request.seed,
        options=request.sampling,
        min_frames=request.min_frames,
        max_frames=request.max_frames,
        forced=request.draft,
    )


def check_texts(text: str, prompt_text: str, mode: Mode = "continuation") -> None:
    """ValueError for texts that no model can serve."""
    if not text.strip():
        raise ValueError("the text is empty: write what shall be spoken")
    if not any(character.isalnum() for character in text):
        raise ValueError(f"the text {text!r} has no letter or digit: there is nothing to speak")
    if mode == "continuation" and not prompt_text.strip():
        raise ValueError("the prompt text is empty: write what the prompt says")
