"""The one-voice teacher `hibari-tts` (Apache-2.0; distilled from Kokoro-82M): 50 h of audio per core-hour.

Its network gives a fundamental frequency and spectra, of which `hibari.dsp` makes a waveform
as source and filter do: what stands between the two can be changed, and one voice becomes many.
"""

import numpy as np
from scipy.ndimage import uniform_filter1d

from training.synthetic.speakers import WARPED, Speaker

SOURCE = "hibari-tts"
VOICED, LOWEST, HIGHEST = 40.0, 60.0, 420.0
"""Hz from which on a frame has a pitch, and between which pitches are kept."""
BIN = 20.0
"""Hz between two bins of the spectra."""
SMOOTH = 81
"""Bins over which a spectrum is averaged to find what stands out of it."""


class HibariTeacher:
    """Loading it takes about a second."""

    def __init__(self) -> None:
        try:
            from hibari import Hibari, dsp  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ValueError("synthetic speech needs its teacher: pip install hibari-tts==0.2.1") from error
        self.model, self.dsp = Hibari(), dsp

    def speak(self, spoken: str, speaker: Speaker, seed: int) -> np.ndarray:
        """The text read at speed / alpha, float32 at 24 kHz; played alpha times faster it is the speaker."""
        draw = np.random.default_rng(seed)
        parts = [self._sentence(one, speaker, draw) for one in self.model.phonemize(spoken)]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _sentence(self, phonemes: str, speaker: Speaker, draw: np.random.Generator) -> np.ndarray:
        ids = np.array([self.model.ids(phonemes)], np.int64)
        speed = np.array([speaker.speed / speaker.alpha], np.float32)
        found = self.model.sess.run(None, {"ids": ids, "speed": speed})
        harmonic, turn, noise, free, phase, pitch = (np.asarray(one)[0] for one in found)
        bins, contrast = warped(len(harmonic), speaker), speaker.contrast
        colour = coloured(len(harmonic), speaker)[:, None]
        harmonic, noise = shaped(harmonic, bins, contrast), shaped(noise, bins, contrast)
        # What has phases of its own keeps its place: moved, it would buzz.
        return self.dsp.synth(
            harmonic + colour,
            turn[bins.round().astype(int)],
            noise + colour + np.float32(speaker.breath),
            free + colour,
            phase,
            pitched(pitch, speaker),
            draw,
        )


def pitched(pitch: np.ndarray, speaker: Speaker) -> np.ndarray:
    """The speaker's pitch [frames] before it is played alpha times faster; unvoiced frames stay."""
    voiced = pitch > VOICED
    if speaker.pitch == 0 or not voiced.any():
        return pitch
    mean = np.exp(np.log(pitch[voiced]).mean())
    moved = speaker.pitch / speaker.alpha * (pitch / mean).clip(min=1e-3) ** speaker.melody
    return np.where(voiced, moved.clip(LOWEST, HIGHEST), pitch).astype(np.float32)


def warped(bins: int, speaker: Speaker) -> np.ndarray:
    """Which of the teacher's bins each of the speaker's is [bins]; fractions lie between two."""
    if not speaker.warp:
        return np.arange(bins, dtype=np.float64)
    given = np.array([0.0, *WARPED, (bins - 1) * BIN])
    moved = given * np.exp([0.0, *speaker.warp, 0.0])
    return np.interp(np.arange(bins) * BIN, moved, given) / BIN


def shaped(spectra: np.ndarray, bins: np.ndarray, contrast: float) -> np.ndarray:
    """Logarithms of spectra [bins, frames] read at `bins`, what stands out times `contrast`."""
    below = np.floor(bins).astype(int).clip(0, len(spectra) - 2)
    share = (bins - below)[:, None].astype(np.float32)
    moved = spectra[below] * (1 - share) + spectra[below + 1] * share
    mean = uniform_filter1d(moved, SMOOTH, axis=0, mode="nearest")
    return mean + np.float32(contrast) * (moved - mean)


def coloured(bins: int, speaker: Speaker) -> np.ndarray:
    """What is added to the logarithms of the teacher's spectra [bins], in nepers."""
    hertz = np.arange(bins) * BIN
    middle, loudness = speaker.band
    tilt = speaker.tilt / 2 * np.log2((hertz + 200) / 1200).clip(-2, 2.5)
    accent = loudness * np.exp(-2 * np.log2((hertz + 1) / middle) ** 2)
    return ((tilt + accent) / 20 * np.log(10)).astype(np.float32)
