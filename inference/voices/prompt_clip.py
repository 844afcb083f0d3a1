"""A clip that shall become a prompt: cut to a good length, and what spoils it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from inference.voices.prompt_audio import check_prompt
from inference.voices.untrusted_audio import load_upload
from tokenizer.io.audio import trim_silence

LEAST_SECONDS, MOST_SECONDS = 3.0, 15.0
"""How long a prompt should be: shorter ones hold too little of a voice, longer ones only take longer."""
LISTEN_SECONDS = 120.0
"""Of a file, in which its speech must begin."""
PAUSE_SECONDS = 0.2
"""Length of the quiet that a cut looks for."""
QUIET_DB, NOISY_DB, CLIPPED_LEVEL, CLIPPED_SHARE = -40.0, 10.0, 0.99, 0.001


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One thing that spoils a clip."""

    kind: Literal["short", "quiet", "clipped", "noisy"]
    value: float
    """Seconds; dBFS; the share at full scale; or decibels from the quiet moments to the loud ones."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What a voice is made of."""

    audio: Float[np.ndarray, " s"]
    sample_rate: int
    cut: bool
    """The file went on after it."""
    advice: tuple[Advice, ...]
    """Empty for a good one."""

    @property
    def seconds(self) -> float:
        return len(self.audio) / self.sample_rate


def load_clip(path: str | Path, sample_rate: int, most_seconds: float = MOST_SECONDS) -> Clip:
    """The first speech of a file, up to `most_seconds`, cut in a pause; AudioError for what is no prompt."""
    whole = load_upload(path, sample_rate, LISTEN_SECONDS)
    check_prompt((whole, sample_rate))
    speech = trim_silence(torch.from_numpy(whole), sample_rate).numpy()
    audio = cut_in_pause(speech, sample_rate, most_seconds)
    return Clip(
        audio=audio,
        sample_rate=sample_rate,
        cut=len(audio) < len(speech),
        advice=tuple(advise(audio, sample_rate)),
    )


def cut_in_pause(
    audio: Float[np.ndarray, " s"], sample_rate: int, most_seconds: float
) -> Float[np.ndarray, " t"]:
    """The audio up to the middle of the quietest moment in the last half before `most_seconds`."""
    most = round(most_seconds * sample_rate)
    if len(audio) <= most:
        return audio
    pause = round(PAUSE_SECONDS * sample_rate)
    first = max(most // 2, min(round(LEAST_SECONDS * sample_rate), most - pause))
    energy = np.concatenate([[0.0], np.cumsum(np.square(audio[first:most], dtype=np.float64))])
    loudness = energy[pause:] - energy[:-pause]
    return audio[: first + int(loudness.argmin()) + pause // 2]


def advise(audio: Float[np.ndarray, " s"], sample_rate: int) -> list[Advice]:
    """What would make a better prompt."""
    frame = sample_rate // 50
    power = np.square(audio[: len(audio) // frame * frame].reshape(-1, frame)).mean(axis=1) + 1e-12
    quiet_db, loud_db = 10 * np.log10(np.percentile(power, [10, 90]))
    level_db = 10 * np.log10(power.mean())
    seconds, clipped = len(audio) / sample_rate, float((np.abs(audio) >= CLIPPED_LEVEL).mean())
    advice = []
    if seconds < LEAST_SECONDS:
        advice.append(Advice(kind="short", value=seconds))
    if level_db < QUIET_DB:
        advice.append(Advice(kind="quiet", value=float(level_db)))
    if clipped > CLIPPED_SHARE:
        advice.append(Advice(kind="clipped", value=clipped))
    if loud_db - quiet_db < NOISY_DB:
        advice.append(Advice(kind="noisy", value=float(loud_db - quiet_db)))
    return advice
