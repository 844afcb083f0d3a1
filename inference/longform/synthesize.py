"""A text of any length read in one voice: piece by piece, each anchored on the same prompt."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cat_tts import SamplingOptions
from inference.engine.job import StopReason
from inference.engine.request import Mode, Request
from inference.engine.result import Take
from inference.engine.seeds import derived_seed
from inference.longform.plan import plan
from inference.longform.segment_cache import Made, WorkFolder
from inference.longform.silence_trimming import edged
from inference.synthesis.best_of_n import DRAFT_DEPTH, best_of, satisfies, score, watched
from inference.synthesis.synthesizer import Synthesizer
from inference.text.segmentation import PIECE_SECONDS, Piece
from inference.voices.prompt_audio import PromptAudio
from inference.voices.voice import Voice

RETRIES = 2


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """How a text is read."""

    depth: int | None = None
    """All codebooks by default."""
    seed: int = 0
    sampling: SamplingOptions | None = None
    """What suits the model by default."""
    mode: Mode = "continuation"
    piece_seconds: float = PIECE_SECONDS
    max_seconds: float | None = None
    """Length limit of every piece, in place of what is drawn from its text."""
    retries: int = RETRIES
    """Further attempts at a piece that ran away, or into its length limit, or that cannot be understood."""
    drafts: int = 1
    """From 2 on, every attempt is the best of so many drafts."""
    draft_depth: int = DRAFT_DEPTH

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ValueError(f"retries={self.retries}: give 0 for a single attempt, or more")
        if self.drafts < 1:
            raise ValueError(f"the best of {self.drafts} drafts: ask for at least 1")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a reading is."""

    piece: int
    """The piece that is being made, from 0."""
    pieces: int
    attempt: int
    """From 0."""
    frames: int
    """Of the attempt, or of its draft, so far; 0 when it begins."""


@dataclass(frozen=True, kw_only=True)
class Passage:
    """One piece as it is heard."""

    audio: Float[np.ndarray, " s"]
    """With the silence around it."""
    text: str
    seconds: float
    """Of speech, without the silence around it."""
    stop_reason: StopReason
    attempts: int
    seed: int
    """Of the attempt that is heard."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A text read out."""

    audio: Float[np.ndarray, " s"]
    sample_rate: int
    passages: tuple[Passage, ...]

    @property
    def retries(self) -> int:
        """Attempts beyond the first, of all pieces."""
        return sum(passage.attempts - 1 for passage in self.passages)

    @property
    def seconds(self) -> float:
        return len(self.audio) / self.sample_rate


def read(
    synthesizer: Synthesizer,
    text: str,
    prompt_audio: PromptAudio | Voice,
    prompt_text: str = "",
    delivery: Delivery | None = None,
    *,
    work: Path | None = None,
    on_progress: Callable[[Progress], object] | None = None,
) -> Reading:
    """The passages of a text, joined; `passages` says how they are made."""
    made = tuple(
        passages(synthesizer, text, prompt_audio, prompt_text, delivery, work=work, on_progress=on_progress)
    )
    audio = np.concatenate([passage.audio for passage in made])
    return Reading(audio=audio, sample_rate=synthesizer.sample_rate, passages=made)


def passages(
    synthesizer: Synthesizer,
    text: str,
    prompt_audio: PromptAudio | Voice,
    prompt_text: str = "",
    delivery: Delivery | None = None,
    *,
    work: Path | None = None,
    on_progress: Callable[[Progress], object] | None = None,
) -> Generator[Passage, None, None]:
    """The pieces of a text one by one, to be played in a row.

    `inference.longform.plan` says what is asked of the model. An attempt that does not come to an end by
    itself, or that a model with a CAT-ASR does not understand, is made again with another seed; when all
    fail, the best is heard. What is made is kept in the folder `work`, and found there when the same is asked
    for again: an interrupted reading goes on.

    All that can be refused is refused with the first piece, and ValueError says so in one line.
    """
    delivery = delivery or Delivery()
    planned = plan(
        synthesizer,
        text,
        synthesizer.voice(prompt_audio, prompt_text),
        depth=delivery.depth,
        seed=delivery.seed,
        sampling=delivery.sampling,
        mode=delivery.mode,
        piece_seconds=delivery.piece_seconds,
        max_seconds=delivery.max_seconds,
    )
    script, requests = planned.script, planned.requests
    folder = None if work is None else WorkFolder(work, synthesizer)
    how = (delivery.retries, delivery.drafts, delivery.draft_depth, delivery.max_seconds is not None)
    for index, (request, piece) in enumerate(zip(requests, script.pieces, strict=True)):

        def report(attempt: int, frames: int, index: int = index) -> None:
            if on_progress is not None:
                progress = Progress(piece=index, pieces=len(requests), attempt=attempt, frames=frames)
                on_progress(progress)

        made = folder.find(request, how) if folder else None
        if made is None:
            made = _make(synthesizer, request, delivery, report)
            if folder:
                folder.keep(request, how, made)
        audio = made.audio if planned.alone else edged(made.audio, synthesizer.sample_rate)
        lead = script.lead_seconds if index == 0 else 0.0
        yield Passage(
            audio=_with_silence(audio, lead, piece, synthesizer.sample_rate),
            text=piece.text,
            seconds=len(audio) / synthesizer.sample_rate,
            stop_reason=made.stop_reason,
            attempts=made.attempts,
            seed=made.seed,
        )


def _make(
    synthesizer: Synthesizer, request: Request, delivery: Delivery, report: Callable[[int, int], None]
) -> Made:
    """Attempts until one is good enough; else the best of them."""
    takes: list[Take] = []
    for attempt in range(1 + delivery.retries):
        again = replace(request, seed=derived_seed(request.seed, attempt))
        takes.append(_attempt(synthesizer, again, delivery, lambda frames, n=attempt: report(n, frames)))
        asked = delivery.max_seconds is not None and takes[-1].stop_reason == "limit"
        if asked or satisfies(synthesizer, takes[-1]):
            best = takes[-1]
            break
    else:
        best = max(takes, key=partial(score, synthesizer))
    return Made(audio=best.audio, stop_reason=best.stop_reason, attempts=len(takes), seed=best.seed)


def _attempt(
    synthesizer: Synthesizer, request: Request, delivery: Delivery, on_frame: Callable[[int], None]
) -> Take:
    on_frame(0)
    if delivery.drafts == 1:
        return watched(synthesizer, request, on_frame)
    choice = best_of(
        synthesizer, request, delivery.drafts, draft_depth=delivery.draft_depth, on_frame=on_frame
    )
    return choice.take


def _with_silence(
    audio: Float[np.ndarray, " s"], lead_seconds: float, piece: Piece, sample_rate: int
) -> Float[np.ndarray, " s"]:
    return np.pad(audio, (round(lead_seconds * sample_rate), round(piece.pause_seconds * sample_rate)))
