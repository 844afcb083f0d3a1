"""The picture shows a tone where it sounds."""

import numpy as np
import pytest

from inference.demo.spectrogram import BANDS, MAX_COLUMNS, mel_levels, spectrogram

RATE = 24_000


def tone(hertz: float, seconds: float = 0.5, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def test_higher_tones_stand_higher() -> None:
    pictures = [spectrogram(tone(hertz), RATE).astype(int).sum(axis=(1, 2)) for hertz in (200, 1000, 6000)]
    rows = [int(picture.argmax()) for picture in pictures]
    assert rows[0] > rows[1] > rows[2]


def test_time_runs_to_the_right() -> None:
    picture = spectrogram(np.concatenate([np.zeros(12_000, np.float32), tone(1000)]), RATE)
    brightness = picture.astype(int).sum(axis=(0, 2))
    assert brightness[-20:-5].mean() > 2 * brightness[5:20].mean()


def test_levels_are_decibels() -> None:
    loud, soft = (mel_levels(tone(1000, level=level), RATE) for level in (0.5, 0.05))
    band = loud.mean(axis=0).argmax()
    assert loud[50, band] - soft[50, band] == pytest.approx(20, abs=0.01)


@pytest.mark.parametrize("samples", [1, 1920, 24_000, 24_000 * 60])
def test_any_length_is_a_picture_of_bounded_width(samples: int) -> None:
    picture = spectrogram(np.zeros(samples, np.float32), RATE)
    assert picture.dtype == np.uint8 and picture.shape[0] == 2 * BANDS
    assert 1 <= picture.shape[1] <= MAX_COLUMNS + 1
