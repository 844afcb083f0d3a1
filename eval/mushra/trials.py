"""The trials of a MUSHRA test (ITU-R BS.1534-3): references, two anchors and the systems."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float

from tokenizer import load_audio

REFERENCE, LOW, MID = "hidden reference", "anchor 3.5 kHz", "anchor 7 kHz"
ANCHORS = {LOW: 3_500, MID: 7_000}
"""Hz: the highest frequency that the low and the mid anchor keep."""
TRANSITION = 500
"""Hz, between what an anchor keeps and what it loses."""
MAX_SECONDS = 12.0
MAX_DIFFERENCE = 0.2
"""Seconds by which a system's rendition may be longer or shorter than its reference."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One recording: the audio of each condition, all equally long and equally loud."""

    name: str
    sample_rate: int
    conditions: Mapping[str, Float[np.ndarray, " s"]]


def read_trials(reference: Path, systems: Mapping[str, Path]) -> list[Trial]:
    """Read one trial for each wav file of the folder of references.

    Args:
        reference: The folder of references.
        systems: By system, a folder that has a file of the same name for each reference.

    Returns:
        The trials, sorted by name.

    Raises:
        ValueError: If there is none, no system or one with a condition's name, a file is missing, or a
            reference is too long, too low in rate, too short or too quiet, or a system's file differs too
            much from its reference in length.
    """
    if wrong := [name for name in systems if name in (REFERENCE, LOW, MID)]:
        raise ValueError(f"a system is called {wrong[0]!r}, as a condition of the test is; rename its folder")
    names = sorted(path.name for path in reference.glob("*.wav"))
    if not names or not systems:
        raise ValueError(f"{reference}: give a folder of wav files, and after it one for each system")
    for system, folder in systems.items():
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise ValueError(f"{folder}: lacks {missing[0]}; {system} needs a file for each reference")
    return [_trial(reference / name, {s: folder / name for s, folder in systems.items()}) for name in names]


def _trial(reference: Path, systems: Mapping[str, Path]) -> Trial:
    rate = soundfile.info(reference).samplerate
    if rate < 2 * (ANCHORS[MID] + TRANSITION):
        raise ValueError(f"{reference}: {rate} Hz cannot hold the anchor of 7 kHz; give 16 kHz or more")
    clean = load_audio(reference, rate).numpy()
    if len(clean) > MAX_SECONDS * rate:
        raise ValueError(f"{reference}: {len(clean) / rate:.1f} s; cut it to {MAX_SECONDS:.0f} s or less")
    conditions = {REFERENCE: clean}
    conditions |= {name: low_pass(clean, rate, edge) for name, edge in ANCHORS.items()}
    for system, path in systems.items():
        audio = load_audio(path, rate).numpy()
        if abs(len(audio) - len(clean)) > MAX_DIFFERENCE * rate:
            raise ValueError(
                f"{path}: {len(audio) / rate:.2f} s and its reference {len(clean) / rate:.2f} s; "
                "give renditions of the same recording"
            )
        conditions[system] = np.pad(audio[: len(clean)], (0, max(0, len(clean) - len(audio))))
    matched = equally_loud(list(conditions.values()), rate, str(reference))
    return Trial(
        name=reference.name, sample_rate=rate, conditions=dict(zip(conditions, matched, strict=True))
    )


def low_pass(audio: Float[np.ndarray, " s"], sample_rate: int, edge: float) -> Float[np.ndarray, " s"]:
    """Remove what lies `TRANSITION` above `edge` (80 dB), without delay.

    Below `edge` the ripple is 0.01 dB at most.

    Args:
        audio: [s] at `sample_rate`.
        sample_rate: In Hz.
        edge: Highest frequency to keep, in Hz.

    Returns:
        float32 audio [s].
    """
    from scipy.signal import fftconvolve, firwin, kaiserord  # half a second to import

    taps, beta = kaiserord(80, 2 * TRANSITION / sample_rate)
    window: Any = ("kaiser", beta)
    kernel = firwin(taps | 1, edge + TRANSITION / 2, window=window, fs=sample_rate)
    return fftconvolve(audio, kernel, mode="same").astype(np.float32)


def equally_loud(
    signals: Sequence[Float[np.ndarray, " s"]], sample_rate: int, name: str
) -> list[Float[np.ndarray, " s"]]:
    """Make all signals as loud as the first (ITU-R BS.1770-4, gated).

    Where one would clip, all are softer by the same factor.

    Args:
        signals: [s] each, at `sample_rate`.
        sample_rate: In Hz.
        name: What messages call them.

    Returns:
        float32 audio [s] of each.

    Raises:
        ValueError: If one is too short or too quiet to have a loudness.
    """
    import pyloudnorm

    meter = pyloudnorm.Meter(sample_rate)
    if len(signals[0]) < meter.block_size * sample_rate:
        raise ValueError(f"{name}: {len(signals[0]) / sample_rate:.2f} s is too short to have a loudness")
    loudness = np.array([meter.integrated_loudness(signal) for signal in signals])
    if not np.isfinite(loudness).all():
        raise ValueError(f"{name}: it or a rendition of it is too quiet to have a loudness; leave it out")
    gains = 10 ** ((loudness[0] - loudness) / 20)
    peak = max(float(np.abs(signal).max()) * gain for signal, gain in zip(signals, gains, strict=True))
    gains = gains / max(1.0, peak)
    return [(signal * gain).astype(np.float32) for signal, gain in zip(signals, gains, strict=True)]
