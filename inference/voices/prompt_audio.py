"""Preparation of prompt audio: it is checked, and brought to the level that the model was trained on."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
from jaxtyping import Float
from torch import Tensor

from tokenizer.io.audio import AudioError, load_audio, trim_silence

PromptAudio = str | Path | tuple[np.ndarray, int]
"""A file, or mono samples [s] as floats in [-1, 1] with their rate in Hz."""

MIN_SECONDS = 0.5
MIN_LEVEL_DB = -60.0
"""RMS in dBFS; anything quieter is silence."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What a model expects of its prompts."""

    trim: bool
    """Whether to trim silence at both ends down to a short margin."""
    target_db: float
    """RMS in dBFS."""
    max_gain_db: float
    """Largest change of level towards the target, up or down."""
    peak_db: float
    """Limit of the loudest sample in dBFS; it takes precedence over the target."""


PLAIN = Preparation(trim=True, target_db=-23.0, max_gain_db=math.inf, peak_db=-1.0)
"""What training.synthetic.build applies to every clip."""
PUBLISHED = Preparation(trim=False, target_db=-20.0, max_gain_db=3.0, peak_db=math.inf)
"""What the published models' processor applies to reference audio."""


def check_prompt(prompt: PromptAudio) -> None:
    """Check a prompt without a model, for what is wrong with any model.

    Args:
        prompt: A file, or samples [s] with their rate.

    Raises:
        AudioError: the prompt cannot be used.
    """
    load_prompt(prompt, 24_000, PLAIN, math.inf)


def load_prompt(
    prompt: PromptAudio, sample_rate: int, preparation: Preparation, max_seconds: float
) -> Float[Tensor, " s"]:
    """Load and prepare a prompt.

    Args:
        prompt: A file, or samples [s] with their rate.
        sample_rate: Samples per second of what is returned.
        preparation: What the model expects.
        max_seconds: Longest prompt that the model accepts.

    Returns:
        Samples [s].

    Raises:
        AudioError: the prompt is not audio, silent, too short or too long.
    """
    if isinstance(prompt, tuple):
        name, audio = "prompt", _from_samples(*prompt, sample_rate)
    else:
        name, audio = str(prompt), load_audio(prompt, sample_rate)
    level_db = _level_db(audio)
    if level_db < MIN_LEVEL_DB:
        raise AudioError(f"{name}: is silent ({level_db:.0f} dBFS); record the voice again, louder")
    if preparation.trim:
        audio = trim_silence(audio, sample_rate)
    seconds = len(audio) / sample_rate
    if seconds < MIN_SECONDS:
        raise AudioError(f"{name}: lasts {seconds:.2f} s; a prompt needs at least {MIN_SECONDS} s of speech")
    if seconds > max_seconds:
        raise AudioError(
            f"{name}: lasts {seconds:.1f} s; this model takes prompts of up to {max_seconds:.0f} s, so cut it"
        )
    wanted_db = preparation.target_db - _level_db(audio)
    gain_db = min(max(wanted_db, -preparation.max_gain_db), preparation.max_gain_db)
    gain = min(10 ** (gain_db / 20), 10 ** (preparation.peak_db / 20) / float(audio.abs().max()))
    return audio * gain


def _level_db(audio: Float[Tensor, " s"]) -> float:
    """Return the RMS in dBFS."""
    return 20 * float(audio.square().mean().sqrt().clamp(min=1e-9).log10())


def _from_samples(samples: np.ndarray, rate: int, sample_rate: int) -> Float[Tensor, " s"]:
    samples = np.asarray(samples)
    if samples.ndim != 1 or samples.dtype.kind != "f":
        raise AudioError(
            f"prompt: {samples.dtype} samples of shape {samples.shape}; give mono floats [s] in [-1, 1]"
        )
    if not np.isfinite(samples).all():
        raise AudioError("prompt: holds NaN or infinite samples; check what produced them")
    if not rate > 0:
        raise AudioError(f"prompt: a rate of {rate} Hz; give the samples per second")
    mono = soxr.resample(samples.astype(np.float32), rate, sample_rate, quality="HQ")
    return torch.from_numpy(mono).clamp(-1, 1)
