"""Text and a prompt in, speech in the prompt's voice out."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cat_tts import CatTTS, SamplingOptions, generate
from cat_tts.published_prompt import continuation_rows, generation_rows, render_user
from cat_tts.sampling import SAMPLING_FILE
from cat_tts.sequence import frames_per_token, join_texts, positions, prompt_rows
from cat_tts.text import TextTokenizer
from inference.prompt import PLAIN, PUBLISHED, PromptAudio, load_prompt
from tokenizer import AudioTokenizer
from tokenizer.checkpoint import local_folder, read_config

DEFAULT_MODEL = Path(__file__).parent.parent / "cat_tts" / "pretrained" / "mini"
"""The embedded model."""
PUBLISHED_SAMPLING = SamplingOptions(repetition_penalty=1.1)
"""As the published models recommend, but for the decision to stop, which they draw at temperature 1.5."""
PUBLISHED_TOKENIZER = "OpenMOSS-Team/MOSS-Audio-Tokenizer"
"""The tokenizer whose codes the published TTS speaks."""

FRAMES_PER_CHARACTER, FRAMES_PER_EAST_ASIAN_CHARACTER = 0.9, 3.1
"""Usual length of speech at 12.5 frames a second."""
LEAST, MOST, MARGIN = 0.3, 2.0, 25
"""A take lasts at least and at most this many times as long as usual; `MARGIN` frames more are granted."""

Mode = Literal["continuation", "reference"]


@dataclass(frozen=True, kw_only=True)
class Take:
    """One synthesis."""

    audio: Float[np.ndarray, " s"]
    sample_rate: int
    codes: Int[Tensor, "t k"]
    depth: int
    bitrate: float
    """Of the codes, in bit/s."""
    seed: int
    stop_reason: Literal["end", "limit"]
    """The model decided that the text is spoken, or the length limit cut it off."""

    @property
    def seconds(self) -> float:
        return len(self.audio) / self.sample_rate


class Synthesizer:
    """A tokenizer and a TTS model that speak together.

    synthesizer = Synthesizer.from_pretrained()
    wav, sample_rate = synthesizer.clone("Good morning.", "prompt.wav", "What the prompt says.")
    """

    def __init__(
        self,
        tts: CatTTS,
        text: TextTokenizer,
        tokenizer: AudioTokenizer,
        sampling: SamplingOptions | None = None,
    ) -> None:
        if tts.config.num_codebooks > tokenizer.config.num_codebooks or (
            tts.config.codebook_size != tokenizer.config.codebook_size
        ):
            raise ValueError(
                f"the TTS speaks {tts.config.num_codebooks} codebooks of {tts.config.codebook_size} codes, "
                f"the tokenizer {tokenizer.config.num_codebooks} of {tokenizer.config.codebook_size}: "
                "they do not fit"
            )
        self.tts, self.text, self.tokenizer = tts, text, tokenizer
        self.sampling = sampling or SamplingOptions()

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        tokenizer: str | Path | None = None,
        device: str | None = None,
    ) -> "Synthesizer":
        """Load the embedded model, or a folder or hub id.

        `model` holds `tts/`, `tokenizer/` and perhaps `sampling.json` (as training.bundle writes them), or is
        a TTS model alone: one of this project's layout, or the published MOSS-TTS-Local-Transformer. Then
        `tokenizer` names the audio tokenizer; by default it is the published one. `device` is cuda where
        there is one; there the TTS runs in bfloat16.
        """
        device = usable_device(device)
        folder = local_folder(DEFAULT_MODEL if model is None else model)
        bundle = (folder / "tts").is_dir()
        if tokenizer is None:
            tokenizer = folder / "tokenizer" if bundle else PUBLISHED_TOKENIZER
        tokenizer = local_folder(tokenizer)
        tts, text = CatTTS.from_pretrained(folder / "tts" if bundle else folder)
        sampling = SamplingOptions() if tts.config.chat is None else PUBLISHED_SAMPLING
        if (folder / SAMPLING_FILE).exists():
            sampling = read_config(SamplingOptions, folder / SAMPLING_FILE)
        dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
        codec = AudioTokenizer.from_pretrained(tokenizer).to(device)
        return cls(tts.to(device, dtype), text, codec, sampling)

    @property
    def sample_rate(self) -> int:
        return self.tokenizer.config.sample_rate

    @property
    def max_depth(self) -> int:
        return self.tts.config.num_codebooks

    @property
    def device(self) -> torch.device:
        return self.tts.text_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.tts.text_embedding.weight.dtype

    @property
    def max_prompt_seconds(self) -> float:
        return self.tts.config.max_prompt_frames / self.tokenizer.config.frame_rate

    def clone(
        self,
        text: str,
        prompt_audio: PromptAudio,
        prompt_text: str,
        depth: int | None = None,
        seed: int = 0,
        sampling: SamplingOptions | None = None,
    ) -> tuple[Float[np.ndarray, " s"], int]:
        """Speak `text` in the voice of a prompt that says `prompt_text`: float32 samples and their rate.

        Raises ValueError (AudioError for the prompt) in one line. `take` has more to set and to tell.
        """
        take = self.take(text, prompt_audio, prompt_text, depth=depth, seed=seed, sampling=sampling)
        return take.audio, take.sample_rate

    def take(
        self,
        text: str,
        prompt_audio: PromptAudio,
        prompt_text: str,
        *,
        depth: int | None = None,
        seed: int = 0,
        sampling: SamplingOptions | None = None,
        mode: Mode = "continuation",
        max_seconds: float | None = None,
        on_frame: Callable[[int], object] | None = None,
    ) -> Take:
        """One synthesis with all that is to be known about it.

        `mode` is for the published models, which can also take the prompt as a reference in the user's
        turn; its transcript is not needed then. `max_seconds` replaces the length limit drawn from the
        text, `sampling` the options that suit the model. `on_frame` is called with the number of frames so
        far.
        """
        check_texts(text, prompt_text, mode)
        depth = self._check(depth, seed, mode)
        usual = usual_frames(text)
        limit = MARGIN + math.ceil(MOST * usual) if max_seconds is None else self._frames(max_seconds)
        codes = self._prompt_codes(prompt_audio)
        rows = self._rows(text, codes, prompt_text, mode)
        pace = frames_per_token(len(codes), len(self.text.encode(prompt_text)))
        if mode == "reference":
            codes = codes[:0]
        limit = min(limit, self.tts.config.max_positions - len(rows))
        if limit < 1:
            raise ValueError(
                f"text and prompt take all {self.tts.config.max_positions} positions: shorten them"
            )
        spoken, stop_reason = [], "limit"
        for row in generate(
            self.tts,
            rows[None].to(self.device),
            None,
            depth=depth,
            seeds=torch.tensor([seed], device=self.device),
            max_frames=limit,
            options=sampling or self.sampling,
            positions=positions(self.tts.config, rows, pace)[None].to(self.device),
            min_frames=max(1, int(LEAST * usual)),
        ):
            if int(row[0, 0]) == self.tts.config.tokens.audio_end:
                stop_reason = "end"
                break
            spoken.append(row[0, 1:])
            if on_frame is not None:
                on_frame(len(spoken))
        new = torch.stack(spoken)
        return Take(
            audio=self._decode(torch.cat([codes[:, :depth].to(new), new]), len(codes)),
            sample_rate=self.sample_rate,
            codes=new.cpu(),
            depth=depth,
            bitrate=self.tokenizer.config.bitrate(depth),
            seed=seed,
            stop_reason=stop_reason,
        )

    def _check(self, depth: int | None, seed: int, mode: Mode) -> int:
        """The depth to use; ValueError for what this model cannot serve."""
        depth = self.max_depth if depth is None else depth
        if not 1 <= depth <= self.max_depth:
            raise ValueError(
                f"depth {depth}: this model has {self.max_depth} codebooks, choose 1 to {self.max_depth}"
            )
        if not -(2**63) <= seed < 2**63:
            raise ValueError(f"seed {seed}: choose a whole number that fits in 64 bits")
        if mode == "reference" and self.tts.config.chat is None:
            raise ValueError("this model only continues prompts: leave the mode at continuation")
        return depth

    def _frames(self, seconds: float) -> int:
        if not 0 < seconds < math.inf:
            raise ValueError(f"a length limit of {seconds} s: give a positive number of seconds")
        return math.ceil(seconds * self.tokenizer.config.frame_rate)

    def _prompt_codes(self, prompt: PromptAudio) -> Int[Tensor, "t k"]:
        preparation = PLAIN if self.tts.config.chat is None else PUBLISHED
        audio = load_prompt(prompt, self.sample_rate, preparation, self.max_prompt_seconds)
        return self.tokenizer.encode(audio[None].to(self.device), self.max_depth)[0].cpu()

    def _rows(self, text: str, codes: Int[Tensor, "t k"], prompt_text: str, mode: Mode) -> Int[Tensor, "n c"]:
        config = self.tts.config
        if mode == "reference":
            return generation_rows(config, self.text, render_user(text, [codes]), [codes])
        whole = join_texts(prompt_text, text)
        if config.chat is None:
            return prompt_rows(config, self.text, whole, codes)
        return continuation_rows(config, self.text, render_user(whole), codes)

    def _decode(self, codes: Int[Tensor, "t k"], prompt_frames: int) -> Float[np.ndarray, " s"]:
        """Audio of the new frames, decoded with the prompt before them as context."""
        audio = self.tokenizer.decode(codes[None])[0, prompt_frames * self.tokenizer.config.frame_size :]
        return audio.float().clamp(-1, 1).cpu().numpy()


def check_texts(text: str, prompt_text: str, mode: Mode = "continuation") -> None:
    """ValueError for texts that no model can serve."""
    if not text.strip():
        raise ValueError("the text is empty: write what shall be spoken")
    if not any(character.isalnum() for character in text):
        raise ValueError(f"the text {text!r} has no letter or digit: there is nothing to speak")
    if mode == "continuation" and not prompt_text.strip():
        raise ValueError("the prompt text is empty: write what the prompt says")


def usable_device(name: str | None) -> str:
    """`name`, or by default cuda where there is one; ValueError for a device that this machine lacks."""
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (AssertionError, RuntimeError):
        raise ValueError(f"device {name!r}: not on this machine; choose cpu, or cuda with a GPU") from None
    return name


def usual_frames(text: str) -> float:
    """About how many frames it takes to speak `text`; East Asian characters take longer than letters."""
    text = text.strip()
    east_asian = sum("\u3040" <= c <= "\u9fff" or "\uac00" <= c <= "\ud7a3" for c in text)
    return east_asian * FRAMES_PER_EAST_ASIAN_CHARACTER + (len(text) - east_asian) * FRAMES_PER_CHARACTER
