"""The log-mel spectrogram of a recording as a picture."""

from functools import cache

import numpy as np
from jaxtyping import Float, UInt8
from transformers.audio_utils import mel_filter_bank

WINDOW, BANDS, ROW_PIXELS = 1024, 80, 2
HOP, MAX_COLUMNS = 120, 1000
RANGE_DB = 70.0
"""A level that is so far below the loudest is black."""
FLOOR_POWER = 1e-4
"""About the power in a band that holds nothing but the rounding to 16 bits."""
COLORS = np.array([[0, 0, 8], [66, 15, 110], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]])
"""RGB colors from quiet to loud, at equal distances in dB."""


def spectrogram(audio: Float[np.ndarray, " s"], sample_rate: int) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a spectrogram: time to the right, 80 mel bands up to half the rate, the loudest brightest.

    Args:
        audio: Samples [s].
        sample_rate: In Hz.

    Returns:
        Pixels [h w 3], the lowest band in the last rows.
    """
    level_db = mel_levels(audio, sample_rate, -(-len(audio) // MAX_COLUMNS))
    brightness = np.clip(1 + (level_db - level_db.max()) / RANGE_DB, 0, 1)
    rows = np.repeat(brightness.T[::-1], ROW_PIXELS, axis=0)
    steps = np.linspace(0, 1, len(COLORS))
    return np.stack([np.interp(rows, steps, color) for color in COLORS.T], axis=-1).astype(np.uint8)


def mel_levels(audio: Float[np.ndarray, " s"], sample_rate: int, hop: int = HOP) -> Float[np.ndarray, "t m"]:
    """Compute the level of every mel band, not below what 16 bits resolve.

    Args:
        audio: Samples [s].
        sample_rate: In Hz.
        hop: Samples from one frame to the next.

    Returns:
        Levels [t m] in dB.
    """
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(audio, WINDOW // 2), WINDOW)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW))) ** 2
    return 10 * np.log10(power @ _filters(sample_rate) + FLOOR_POWER)


@cache
def _filters(sample_rate: int) -> Float[np.ndarray, "f m"]:
    return mel_filter_bank(WINDOW // 2 + 1, BANDS, 0.0, sample_rate / 2, sample_rate)
