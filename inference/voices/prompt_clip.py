"""Preparation of a clip as a prompt: it is cut to a good length, and defects are reported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from inference.voices.prompt_audio import PromptRecording, check_recording
from inference.voices.untrusted_audio import load_upload
from tokenizer.io.audio import trim_silence

MIN_CLIP_SECONDS, MAX_CLIP_SECONDS = 3.0, 15.0
"""Recommended length of a prompt: shorter ones contain too little of a voice, longer ones only take time."""
MAX_SEARCH_SECONDS = 120.0
"""Beginning of a file that is read; its speech must start there."""
PAUSE_SECONDS = 0.2
"""Length of the quiet moment in which the clip is cut."""
QUIET_DB, NOISY_DB, CLIPPED_LEVEL, CLIPPED_SHARE = -40.0, 10.0, 0.99, 0.001


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A defect of a clip."""

    kind: Literal["short", "quiet", "clipped", "noisy"]
    value: float
    """Seconds; dBFS; the share at full scale; or decibels from the quiet moments to the loud ones."""


@dataclass(frozen=True, kw_only=True)
class PromptClip:
    """Audio for a prompt, with its defects."""

    audio: Float[np.ndarray, " s"]
    sample_rate: int
    cut: bool
    """Whether the file continues after the clip."""
    advice: tuple[Advice, ...]
    """Empty for a good clip."""

    @property
    def seconds(self) -> float:
        """Duration of the audio in seconds."""
        return len(self.audio) / self.sample_rate


def load_clip(path: str | Path, sample_rate: int, max_seconds: float = MAX_CLIP_SECONDS) -> PromptClip:
    """Load the first speech of a file, cut in a pause.

    Args:
        path: An audio file; it may come from an untrusted source.
        sample_rate: Samples per second of the clip.
        max_seconds: Longest clip.

    Returns:
        The clip and its defects.

    Raises:
        AudioError: the file cannot be used as a prompt.
    """
    whole = load_upload(path, sample_rate, MAX_SEARCH_SECONDS)
    check_recording(PromptRecording(samples=whole, sample_rate=sample_rate))
    speech = trim_silence(torch.from_numpy(whole), sample_rate).numpy()
    audio = cut_in_pause(speech, sample_rate, max_seconds)
    return PromptClip(
        audio=audio,
        sample_rate=sample_rate,
        cut=len(audio) < len(speech),
        advice=tuple(advise(audio, sample_rate)),
    )


def cut_in_pause(
    audio: Float[np.ndarray, " s"], sample_rate: int, max_seconds: float
) -> Float[np.ndarray, " t"]:
    """Cut audio in the middle of the quietest moment in the second half of the first `max_seconds`.

    Args:
        audio: Samples [s].
        sample_rate: Samples per second.
        max_seconds: Longest duration of what is returned.

    Returns:
        The first samples [t]; all of them where they are short enough.
    """
    max_samples = round(max_seconds * sample_rate)
    if len(audio) <= max_samples:
        return audio
    pause = round(PAUSE_SECONDS * sample_rate)
    first = max(max_samples // 2, min(round(MIN_CLIP_SECONDS * sample_rate), max_samples - pause))
    energy = np.concatenate([[0.0], np.cumsum(np.square(audio[first:max_samples], dtype=np.float64))])
    loudness = energy[pause:] - energy[:-pause]
    return audio[: first + int(loudness.argmin()) + pause // 2]


def advise(audio: Float[np.ndarray, " s"], sample_rate: int) -> list[Advice]:
    """Report what would make a better prompt.

    Args:
        audio: Samples [s].
        sample_rate: Samples per second.

    Returns:
        The defects; none for a good clip.
    """
    frame = sample_rate // 50
    power = np.square(audio[: len(audio) // frame * frame].reshape(-1, frame)).mean(axis=1) + 1e-12
    quiet_db, loud_db = 10 * np.log10(np.percentile(power, [10, 90]))
    level_db = 10 * np.log10(power.mean())
    seconds, clipped = len(audio) / sample_rate, float((np.abs(audio) >= CLIPPED_LEVEL).mean())
    advice = []
    if seconds < MIN_CLIP_SECONDS:
        advice.append(Advice(kind="short", value=seconds))
    if level_db < QUIET_DB:
        advice.append(Advice(kind="quiet", value=float(level_db)))
    if clipped > CLIPPED_SHARE:
        advice.append(Advice(kind="clipped", value=clipped))
    if loud_db - quiet_db < NOISY_DB:
        advice.append(Advice(kind="noisy", value=float(loud_db - quiet_db)))
    return advice
