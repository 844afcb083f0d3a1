"""How fast takes are made here, by depth: measured once, then predicted."""

import time
from dataclasses import dataclass

import torch

from inference.synthesis.synthesizer import Synthesizer
from inference.voices.voice import Voice

PROMPT_FRAMES, FRAMES = 50, 16


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds that a frame takes: so many, and so many more for every codebook."""

    base: float
    per_codebook: float
    frame_rate: float

    def rtf(self, depth: int) -> float:
        """Of a take that is alone: below 1 is faster than it is listened to."""
        return (self.base + self.per_codebook * depth) * self.frame_rate


def measure(synthesizer: Synthesizer) -> Speed:
    """From the takes of two depths, made after one that warms up."""
    deepest = synthesizer.max_depth
    _seconds_per_frame(synthesizer, deepest)
    shallow, deep = (_seconds_per_frame(synthesizer, depth) for depth in (1, deepest))
    per_codebook = max(0.0, deep - shallow) / max(1, deepest - 1)
    frame_rate = synthesizer.tokenizer.config.frame_rate
    return Speed(base=shallow - per_codebook, per_codebook=per_codebook, frame_rate=frame_rate)


def _seconds_per_frame(synthesizer: Synthesizer, depth: int) -> float:
    """Of the frames after the first, which pays for the prompt."""
    codes = torch.zeros(PROMPT_FRAMES, synthesizer.max_depth, dtype=torch.long)
    voice = Voice(codes=codes, text="One two three four.")
    seconds = (FRAMES + 1) / synthesizer.tokenizer.config.frame_rate
    # Such a text takes longer than this: the take is not over before.
    text = "five six seven eight nine ten " * 6
    with synthesizer.stream(text, voice, depth=depth, max_seconds=seconds) as stream:
        next(stream)
        begun = time.perf_counter()
        rest = sum(1 for _ in stream)
    return (time.perf_counter() - begun) / rest
