"""Spectral distances of codec papers: two that go by the name of mel distance, and the STFT distance.

All are DAC's, on spectrograms with a periodic Hann window, a hop of a quarter of the window, centred frames
and the floor 1e-5, with Slaney mels from 0 Hz to half the rate. They depend on the sample rate of the audio,
and the two mel distances must never share one table column. The paper does not say which one its Table 2 has;
the ratios to its STFT distance suggest `mel_distance_two`.
"""

import functools
import warnings

import numpy as np
import torch
from torch import Tensor

from eval.metrics.audio import MetricError, require_finite
from training.audio_tokenizer.losses import WINDOWS, MultiScaleMelLoss, mel_filters

FLOOR = 1e-5
TWO_WINDOWS = {2048: 150, 512: 80}
"""Window and number of mels of DAC's loss where no configuration is loaded."""


def mel_distance(reference: np.ndarray, degraded: np.ndarray, sample_rate: int) -> float:
    """Compute the mean absolute difference of log10 mel spectrograms, summed over seven scales.

    This is the training loss: windows 32, 64, ... 2048 with 5, 10, ... 320 mels of the magnitude. Signals are
    cut to the shorter. A gain g alone gives 7 |log10 g|, less where the floor applies.

    Args:
        reference: [s] original audio at `sample_rate`.
        degraded: [t] audio to score, at the same rate.
        sample_rate: In Hz.

    Raises:
        MetricError: If there are 1,024 samples or fewer, half the longest window, or a signal is not finite.
    """
    pair = _pair(reference, degraded, max(WINDOWS))
    with torch.inference_mode():
        return float(_mel_loss(sample_rate)(pair[1:], pair[:1]))


def mel_distance_two(reference: np.ndarray, degraded: np.ndarray, sample_rate: int) -> float:
    """Compute the mel distance with DAC's defaults: windows 2048 and 512 with 150 and 80 mels.

    It sums over both windows: the mean absolute difference of log10 of the squared mels of the magnitude,
    and of the mels themselves. Signals are cut to the shorter.

    Args:
        reference: [s] original audio at `sample_rate`.
        degraded: [t] audio to score, at the same rate.
        sample_rate: In Hz.

    Raises:
        MetricError: If there are 1,024 samples or fewer, half the longest window, or a signal is not finite.
    """
    pair = _pair(reference, degraded, max(TWO_WINDOWS))
    mels = [_magnitude(pair, window) @ _filters(sample_rate, window) for window in TWO_WINDOWS]
    return sum(_log_and_linear(mel) for mel in mels)


def stft_distance(reference: np.ndarray, degraded: np.ndarray) -> float:
    """Compute the STFT distance with DAC's defaults: windows 2048 and 512.

    It sums over both windows: the mean absolute difference of log10 of the squared magnitude, and of the
    magnitude. Signals are cut to the shorter.

    Args:
        reference: [s] original audio.
        degraded: [t] audio to score, at the same rate.

    Raises:
        MetricError: If there are 1,024 samples or fewer, half the longest window, or a signal is not finite.
    """
    pair = _pair(reference, degraded, max(TWO_WINDOWS))
    return sum(_log_and_linear(_magnitude(pair, window)) for window in TWO_WINDOWS)


def _pair(reference: np.ndarray, degraded: np.ndarray, window: int) -> Tensor:
    """Return reference and degraded [2, s], cut to the shorter."""
    require_finite(reference, degraded)
    count = min(len(reference), len(degraded))
    if count <= window // 2:
        raise MetricError(f"the distance is undefined: {count} samples, {window // 2 + 1} are needed")
    pair = [np.asarray(audio[:count], dtype=np.float32) for audio in (reference, degraded)]
    return torch.from_numpy(np.stack(pair))


def _magnitude(audio: Tensor, window: int) -> Tensor:
    """Return the magnitudes [b, t, f] of the STFT of audio [b, s]."""
    hann = torch.hann_window(window)
    return torch.stft(audio, window, window // 4, window=hann, return_complex=True).abs().mT


def _log_and_linear(spectra: Tensor) -> float:
    logs = spectra.clamp(min=FLOOR).square().log10()
    return float((logs[0] - logs[1]).abs().mean() + (spectra[0] - spectra[1]).abs().mean())


@functools.cache
def _filters(sample_rate: int, window: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 80 mels leave some of 257 bins' filters empty: so be it
        return mel_filters(sample_rate, window, TWO_WINDOWS[window])


@functools.cache
def _mel_loss(sample_rate: int) -> MultiScaleMelLoss:
    return MultiScaleMelLoss(sample_rate)
