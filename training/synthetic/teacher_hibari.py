"""Synthesize with the one-voice teacher `hibari-tts` (Apache-2.0; distilled from Kokoro-82M).

It makes 50 h of audio per core-hour. Its network computes a fundamental frequency and spectra, from which
`hibari.dsp` synthesizes a waveform with a source and a filter: changed in between, one voice becomes many.
"""

import numpy as np
from scipy.ndimage import uniform_filter1d

from training.synthetic.speakers import WARP_FREQUENCIES, Speaker

SOURCE = "hibari-tts"
VOICED_THRESHOLD, MIN_PITCH, MAX_PITCH = 40.0, 60.0, 420.0
"""Hz: a frame with a higher pitch is voiced; limits of a changed pitch."""
BIN_WIDTH = 20.0
"""Hz between two bins of the spectra."""
SMOOTHING_BINS = 81
"""Bins over which a spectrum is averaged to find the resonances, which exceed the average."""


class HibariTeacher:
    """The teacher hibari, which takes about a second to load.

    Raises:
        ValueError: the package `hibari-tts` is not installed.
    """

    def __init__(self) -> None:
        try:
            from hibari import Hibari, dsp  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ValueError("synthetic speech needs its teacher: pip install hibari-tts==0.2.1") from error
        self.model, self.dsp = Hibari(), dsp

    def speak(self, spoken: str, speaker: Speaker, seed: int) -> np.ndarray:
        """Synthesize a text at speed / alpha, to be played alpha times faster.

        Args:
            spoken: the text.
            speaker: the pseudo-speaker.
            seed: of the noise in the voice.

        Returns:
            Samples [s] float32 at 24 kHz.
        """
        draw = np.random.default_rng(seed)
        sentences = self.model.phonemize(spoken)
        parts = [self._synthesize_sentence(phonemes, speaker, draw) for phonemes in sentences]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _synthesize_sentence(self, phonemes: str, speaker: Speaker, draw: np.random.Generator) -> np.ndarray:
        ids = np.array([self.model.ids(phonemes)], np.int64)
        speed = np.array([speaker.speed / speaker.alpha], np.float32)
        outputs = self.model.sess.run(None, {"ids": ids, "speed": speed})
        harmonic, turn, noise, free, phase, pitch = (np.asarray(output)[0] for output in outputs)
        bins, contrast = warp_bins(len(harmonic), speaker), speaker.contrast
        gain = equalizer(len(harmonic), speaker)[:, None]
        harmonic, noise = reshape_spectra(harmonic, bins, contrast), reshape_spectra(noise, bins, contrast)
        # The part that has phases (`free`) is not warped: moved to other bins, it would buzz.
        return self.dsp.synth(
            harmonic + gain,
            turn[bins.round().astype(int)],
            noise + gain + np.float32(speaker.breath),
            free + gain,
            phase,
            change_pitch(pitch, speaker),
            draw,
        )


def change_pitch(pitch: np.ndarray, speaker: Speaker) -> np.ndarray:
    """Give a pitch contour [frames] in Hz the speaker's mean and range; unvoiced frames stay.

    The result is the speaker's divided by alpha, since it is played alpha times faster.
    """
    voiced = pitch > VOICED_THRESHOLD
    if speaker.pitch == 0 or not voiced.any():
        return pitch
    mean = np.exp(np.log(pitch[voiced]).mean())
    moved = speaker.pitch / speaker.alpha * (pitch / mean).clip(min=1e-3) ** speaker.melody
    return np.where(voiced, moved.clip(MIN_PITCH, MAX_PITCH), pitch).astype(np.float32)


def warp_bins(bins: int, speaker: Speaker) -> np.ndarray:
    """Return for each bin of the speaker's spectrum the teacher's bin [bins], as a fractional number."""
    if not speaker.warp:
        return np.arange(bins, dtype=np.float64)
    original = np.array([0.0, *WARP_FREQUENCIES, (bins - 1) * BIN_WIDTH])
    moved = original * np.exp([0.0, *speaker.warp, 0.0])
    return np.interp(np.arange(bins) * BIN_WIDTH, moved, original) / BIN_WIDTH


def reshape_spectra(spectra: np.ndarray, bins: np.ndarray, contrast: float) -> np.ndarray:
    """Warp spectra, and change how far their resonances exceed the average.

    Args:
        spectra: logarithms [bins, frames].
        bins: from which bin each bin is read; fractions are interpolated.
        contrast: factor of the difference from the average over `SMOOTHING_BINS`.
    """
    below = np.floor(bins).astype(int).clip(0, len(spectra) - 2)
    share = (bins - below)[:, None].astype(np.float32)
    moved = spectra[below] * (1 - share) + spectra[below + 1] * share
    mean = uniform_filter1d(moved, SMOOTHING_BINS, axis=0, mode="nearest")
    return mean + np.float32(contrast) * (moved - mean)


def equalizer(bins: int, speaker: Speaker) -> np.ndarray:
    """Return the gain of the speaker's tilt and band at each bin of the spectra [bins], in nepers."""
    hertz = np.arange(bins) * BIN_WIDTH
    middle, loudness = speaker.band
    tilt = speaker.tilt / 2 * np.log2((hertz + 200) / 1200).clip(-2, 2.5)
    accent = loudness * np.exp(-2 * np.log2((hertz + 1) / middle) ** 2)
    return ((tilt + accent) / 20 * np.log(10)).astype(np.float32)
