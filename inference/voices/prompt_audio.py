"""Reading of prompt audio: it is checked, and brought to the level that the model was trained on."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from tokenizer.io.audio import AudioError, read_file, resample, trim_silence

PromptAudio = str | Path | tuple[np.ndarray, int]
"""A file, or mono samples [s] as floats in [-1, 1] with their rate in Hz."""

MIN_SECONDS = 0.5
MIN_RATE, MAX_RATE = 1_000, 1_000_000
"""Plausible rates of samples in Hz."""
MIN_LEVEL_DB = -60.0
"""RMS in dBFS; anything quieter is silence."""


@dataclass(frozen=True, kw_only=True)
class PromptRecording:
    """Audio as it was recorded."""

    samples: Float[np.ndarray, " s"]
    """Mono."""
    sample_rate: float
    name: str = "prompt"
    """What messages call it."""


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


def read_recording(prompt: PromptAudio) -> PromptRecording:
    """Read a recording of a voice, without a model.

    Args:
        prompt: A file, or mono samples [s] with their rate.

    Returns:
        The recording.

    Raises:
        AudioError: it is not audio.
    """
    if isinstance(prompt, tuple):
        return _from_samples(prompt)
    samples, rate = read_file(prompt)
    return PromptRecording(samples=samples, sample_rate=rate, name=str(prompt))


def check_recording(recording: PromptRecording) -> None:
    """Check a recording without a model, for what is wrong with any model.

    Raises:
        AudioError: it is silent or too short.
    """
    prepare(recording, 24_000, PLAIN, math.inf)


def prepare(
    recording: PromptRecording, sample_rate: int, preparation: Preparation, max_seconds: float
) -> Float[Tensor, " s"]:
    """Bring a recording to what a model expects of its prompts.

    Args:
        recording: The recording.
        sample_rate: Samples per second of what is returned.
        preparation: What the model expects.
        max_seconds: Longest prompt that the model accepts.

    Returns:
        Samples [s].

    Raises:
        AudioError: the recording is silent, too short or too long.
    """
    name = recording.name
    audio = resample(recording.samples, recording.sample_rate, sample_rate, name)
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


def _from_samples(prompt: tuple[object, object]) -> PromptRecording:
    if len(prompt) != 2:
        raise AudioError(f"prompt: a tuple of {len(prompt)} things; give samples and their rate")
    try:
        samples, rate = np.asarray(prompt[0]), prompt[1]
    except (RuntimeError, TypeError, ValueError) as error:  # such as a tensor on a GPU
        raise AudioError(f"prompt: its samples cannot be read ({error})") from None
    if samples.ndim != 1 or samples.dtype.kind != "f":
        raise AudioError(
            f"prompt: {samples.dtype} samples of shape {samples.shape}; give mono floats [s] in [-1, 1]"
        )
    if not np.isfinite(samples).all():
        raise AudioError("prompt: holds NaN or infinite samples; check what produced them")
    if not isinstance(rate, (int, float, np.number)) or not MIN_RATE <= rate <= MAX_RATE:
        shown = " ".join(str(rate).split())[:80]
        raise AudioError(
            f"prompt: a rate of {shown} Hz; give the samples per second, {MIN_RATE} to {MAX_RATE}"
        )
    return PromptRecording(samples=samples.astype(np.float32), sample_rate=float(rate))
