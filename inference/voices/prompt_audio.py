"""The prompt of a voice: audio checked and brought to the level that the model was trained on."""

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
SILENCE_DB = -60.0


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What a model expects of its prompts."""

    trim: bool
    """Without more than a breath of silence at both ends."""
    target_db: float
    """RMS in dBFS."""
    most_db: float
    """How far a prompt may be moved towards it."""
    peak_db: float
    """What the loudest sample, in dBFS, stays below, even where the target is missed for it."""


PLAIN = Preparation(trim=True, target_db=-23.0, most_db=math.inf, peak_db=-1.0)
"""What training.synthetic.build makes of every clip."""
PUBLISHED = Preparation(trim=False, target_db=-20.0, most_db=3.0, peak_db=math.inf)
"""What the published models' processor does to reference audio."""


def check_prompt(prompt: PromptAudio) -> None:
    """AudioError for what is wrong with a prompt whatever the model, before one is loaded."""
    load_prompt(prompt, 24_000, PLAIN, math.inf)


def load_prompt(
    prompt: PromptAudio, sample_rate: int, preparation: Preparation, max_seconds: float
) -> Float[Tensor, " s"]:
    """The prompt at `sample_rate`, prepared; AudioError when it is no audio, silent, too short or long."""
    if isinstance(prompt, tuple):
        name, audio = "prompt", _from_samples(*prompt, sample_rate)
    else:
        name, audio = str(prompt), load_audio(prompt, sample_rate)
    level_db = _level_db(audio)
    if level_db < SILENCE_DB:
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
    gain_db = min(max(wanted_db, -preparation.most_db), preparation.most_db)
    gain = min(10 ** (gain_db / 20), 10 ** (preparation.peak_db / 20) / float(audio.abs().max()))
    return audio * gain


def _level_db(audio: Float[Tensor, " s"]) -> float:
    """RMS in dBFS."""
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
