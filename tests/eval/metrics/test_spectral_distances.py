"""Spectral distances against librosa, and by hand."""

import math

import librosa
import numpy as np
import pytest
from scipy.signal import get_window

from eval.metrics.audio import MetricError
from eval.metrics.spectral_distances import mel_distance, mel_distance_two, stft_distance
from inference.synthesis.loading import DEFAULT_MODEL
from tokenizer import load_audio

RATE = 24_000


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Two seconds of real speech, and the same with a noise, less treble and a few samples less."""
    speech = load_audio(DEFAULT_MODEL / "prompt.flac", RATE).numpy()[RATE : 3 * RATE]
    noise = np.random.default_rng(0).normal(0, 0.003, len(speech))
    return speech, (np.convolve(speech, [0.25, 0.5, 0.25], "same") + noise)[:-7].astype(np.float32)


def librosa_magnitude(audio: np.ndarray, window: int) -> np.ndarray:
    """Magnitudes [f, t], in float64."""
    hann = get_window("hann", window)
    spectrum = librosa.stft(
        audio.astype(np.float64), n_fft=window, hop_length=window // 4, window=hann, pad_mode="reflect"
    )
    return np.abs(spectrum)


def librosa_mel(audio: np.ndarray, window: int, mels: int) -> np.ndarray:
    filters = librosa.filters.mel(sr=RATE, n_fft=window, n_mels=mels, fmin=0, fmax=RATE / 2, norm="slaney")
    return filters @ librosa_magnitude(audio, window)


def difference(first: np.ndarray, second: np.ndarray, power: int) -> float:
    logs = [np.log10(np.maximum(spectrum, 1e-5) ** power) for spectrum in (first, second)]
    return float(np.abs(logs[0] - logs[1]).mean())


def test_the_stft_distance_is_that_of_librosa_spectra(pair: tuple[np.ndarray, np.ndarray]) -> None:
    expected, cut = 0.0, [audio[: len(pair[1])] for audio in pair]
    for window in (2048, 512):
        first, second = (librosa_magnitude(audio, window) for audio in cut)
        expected += difference(first, second, 2) + np.abs(first - second).mean()
    assert stft_distance(*pair) == pytest.approx(expected, rel=1e-4)


@pytest.mark.filterwarnings("ignore:Empty filters")
def test_the_mel_distances_are_those_of_librosa_spectra(pair: tuple[np.ndarray, np.ndarray]) -> None:
    cut = [audio[: len(pair[1])] for audio in pair]
    two = seven = 0.0
    for window, mels in ((2048, 150), (512, 80)):
        first, second = (librosa_mel(audio, window, mels) for audio in cut)
        two += difference(first, second, 2) + np.abs(first - second).mean()
    for n in range(7):
        first, second = (librosa_mel(audio, 32 << n, 5 << n) for audio in cut)
        seven += difference(first, second, 1)
    assert mel_distance_two(*pair, RATE) == pytest.approx(two, rel=1e-4)
    assert mel_distance(*pair, RATE) == pytest.approx(seven, rel=1e-4)
    assert abs(two - seven) > 0.1


def test_a_gain_by_hand() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    assert mel_distance(noise, noise / 2, RATE) == pytest.approx(7 * math.log10(2), abs=2e-3)
    magnitude = sum(librosa_magnitude(noise, window).mean() for window in (2048, 512))
    assert stft_distance(noise, noise / 2) == pytest.approx(4 * math.log10(2) + magnitude / 2, rel=1e-3)
    for distance in (mel_distance(noise, noise, RATE), mel_distance_two(noise, noise, RATE)):
        assert distance == 0
    assert stft_distance(noise, noise) == 0


@pytest.mark.parametrize("problem", ["short", "empty", "nan"])
def test_undefined_distances_say_so(problem: str) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    bad = {"short": noise[:1024], "empty": noise[:0], "nan": noise * np.float32("nan")}[problem]
    for distance in (mel_distance, mel_distance_two):
        with pytest.raises(MetricError):
            distance(noise, bad, RATE)
    with pytest.raises(MetricError):
        stft_distance(noise, bad)
    assert stft_distance(noise * 0, noise[:1025]) > 1, "silence is defined"
