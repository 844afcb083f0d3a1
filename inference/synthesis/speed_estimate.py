"""An estimate of the synthesis speed on this machine for every depth, from one measurement."""

import time
from dataclasses import dataclass

import torch

from inference.engine.options import UNWATCHED, SynthesisOptions
from inference.synthesis.models import SpeechModels
from inference.synthesis.runner import LocalRunner
from inference.voices.voice import Voice

PROMPT_FRAMES, FRAMES = 50, 16


@dataclass(frozen=True, kw_only=True)
class Speed:
    """A linear model of the seconds per frame: a constant, and an increment for every codebook."""

    base: float
    per_codebook: float
    frame_rate: float

    def rtf(self, depth: int) -> float:
        """Return the real-time factor of a single request; below 1 is faster than real time."""
        return (self.base + self.per_codebook * depth) * self.frame_rate


def measure(models: SpeechModels) -> Speed:
    """Measure the speed at the smallest and the largest depth, after a warm-up.

    Args:
        models: The models to measure, on their device.

    Returns:
        The linear model through both measurements.
    """
    runner, deepest = LocalRunner(models), models.max_depth
    _seconds_per_frame(runner, deepest)
    shallow, deep = (_seconds_per_frame(runner, depth) for depth in (1, deepest))
    per_codebook = max(0.0, deep - shallow) / max(1, deepest - 1)
    frame_rate = models.tokenizer.config.frame_rate
    return Speed(base=shallow - per_codebook, per_codebook=per_codebook, frame_rate=frame_rate)


def _seconds_per_frame(runner: LocalRunner, depth: int) -> float:
    """Time the frames after the first one, which includes the processing of the prompt."""
    models = runner.models
    codes = torch.zeros(PROMPT_FRAMES, models.max_depth, dtype=torch.long)
    voice = Voice(codes=codes, text="One two three four.")
    seconds = (FRAMES + 1) / models.tokenizer.config.frame_rate
    # Such a text takes longer than this, so the model does not stop earlier.
    text = "five six seven eight nine ten " * 6
    options = SynthesisOptions(depth=depth, max_seconds=seconds, policy=UNWATCHED)
    with runner.stream(models.request(text, voice, options)) as stream:
        next(stream)
        start = time.perf_counter()
        remaining = sum(1 for _ in stream)
    return (time.perf_counter() - start) / remaining
