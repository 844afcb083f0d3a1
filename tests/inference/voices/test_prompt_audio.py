"""Preparation of prompts: their level, and the errors of unusable ones."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from inference.voices.prompt_audio import (
    PLAIN,
    PUBLISHED,
    Preparation,
    PromptAudio,
    check_recording,
    prepare,
    read_recording,
)
from tokenizer import AudioError
from training.synthetic.jobs import normalize_loudness

RATE = 24_000


def sine(rms_db: float, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    """Return a sine of this RMS in dBFS."""
    turns = 220 * np.arange(round(seconds * rate)) / rate
    return (10 ** (rms_db / 20) * math.sqrt(2) * np.sin(2 * np.pi * turns)).astype(np.float32)


def with_click(rms_db: float, peak: float) -> np.ndarray:
    samples = sine(rms_db)
    samples[9_000] = peak
    return samples


def decibels(audio: Tensor) -> float:
    return float(20 * audio.double().square().mean().sqrt().log10())


def load(prompt: PromptAudio | np.ndarray, level: Preparation = PLAIN, max_seconds: float = 8.0) -> Tensor:
    """Read and prepare a prompt; samples alone have the rate of the tests."""
    source = (prompt, RATE) if isinstance(prompt, np.ndarray) else prompt
    return prepare(read_recording(source), RATE, level, max_seconds)


@pytest.mark.parametrize(
    ("level", "rms_db", "expected"),
    [
        (PLAIN, -59.0, -23.0),
        (PLAIN, -23.0, -23.0),
        (PLAIN, -5.0, -23.0),
        (PUBLISHED, -40.0, -37.0),
        (PUBLISHED, -22.5, -20.0),
        (PUBLISHED, -18.0, -20.0),
        (PUBLISHED, -6.0, -9.0),
    ],
)
def test_level(level: Preparation, rms_db: float, expected: float) -> None:
    """Plain models get every prompt at -23 dBFS; published ones at -20, but changed by 3 dB at most."""
    samples = sine(rms_db)
    audio = load(samples, level)
    assert decibels(audio) == pytest.approx(expected, abs=0.01)
    torch.testing.assert_close(audio, torch.from_numpy(samples) * 10 ** ((expected - rms_db) / 20))


def test_peaks_limit_the_gain_as_in_training() -> None:
    audio = load(with_click(-40.0, peak=0.5))
    assert audio.max() == pytest.approx(10 ** (-1 / 20))
    assert -40 < decibels(audio) < -30


def test_peaks_do_not_limit_the_published_gain() -> None:
    samples = with_click(-30.0, peak=0.9)
    torch.testing.assert_close(load(samples, PUBLISHED), torch.from_numpy(samples) * 10 ** (3 / 20))


@pytest.mark.parametrize("samples", [sine(-35.0), sine(-8.0), with_click(-40.0, peak=0.5)])
def test_a_prompt_is_as_loud_as_a_clip_of_the_corpus(samples: np.ndarray) -> None:
    torch.testing.assert_close(load(samples), torch.from_numpy(normalize_loudness(samples)))


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100])
def test_samples_equal_their_file(tmp_path: Path, rate: int) -> None:
    samples = sine(-12.0, rate=rate)
    samples[50:90] = 1.7  # beyond full scale
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    file = load(tmp_path / "a.wav")
    assert file.dtype == torch.float32 and len(file) == RATE
    assert torch.equal(load((samples, rate)), file)
    assert torch.equal(load((samples.astype(np.float64), rate)), file)
    assert torch.equal(load(str(tmp_path / "a.wav")), file)


def test_shortest_and_longest() -> None:
    assert len(load(sine(-20.0)[:12_000])) == 12_000
    assert len(load(sine(-20.0), max_seconds=1.0)) == RATE
    with pytest.raises(
        AudioError, match=r"^prompt: lasts 0\.50 s; a prompt needs at least 0\.5 s of speech$"
    ):
        load(sine(-20.0)[:11_999])
    with pytest.raises(AudioError, match=r"lasts 1\.0 s; this model takes prompts of up to 1 s, so cut it$"):
        load(np.append(sine(-20.0), np.float32(0)), max_seconds=1.0)


def test_seconds_are_counted_whatever_the_rate(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.stack([sine(-20.0, 0.4, 48_000)] * 2, 1), 48_000)
    with pytest.raises(AudioError, match=r"a\.flac: lasts 0\.40 s"):
        load(tmp_path / "a.flac")


@pytest.mark.parametrize("level", [PLAIN, PUBLISHED])
def test_silence(level: Preparation) -> None:
    for samples in (np.zeros(RATE, np.float32), sine(-61.0)):
        with pytest.raises(AudioError, match=r"^prompt: is silent \(-\d+ dBFS\); record the voice again"):
            load(samples, level)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.where(np.arange(RATE) == 77, np.nan, sine(-20.0)), "holds NaN or infinite samples"),
        (np.where(np.arange(RATE) == 77, np.inf, sine(-20.0)), "holds NaN or infinite samples"),
        (np.stack([sine(-20.0)] * 2), r"float32 samples of shape \(2, 24000\); give mono floats"),
        (np.stack([sine(-20.0)] * 2, 1), r"float32 samples of shape \(24000, 2\); give mono floats"),
        ((sine(-20.0) * 32_768).astype(np.int16), r"int16 samples of shape \(24000,\); give mono floats"),
        (np.zeros(0, np.float32), "holds no samples"),
    ],
)
def test_samples_that_are_no_prompt(samples: np.ndarray, message: str) -> None:
    with pytest.raises(AudioError, match=f"^prompt: {message}"):
        load(samples)


@pytest.mark.parametrize("rate", [0, -24_000, math.inf, math.nan, 3, 10**9, "24k", None])
def test_rate_that_cannot_be(rate: Any) -> None:
    with pytest.raises(AudioError, match=f"a rate of {rate} Hz; give the samples per second"):
        load((sine(-20.0), rate))


def test_file_with_nan(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.where(np.arange(RATE) == 77, np.nan, 0.1), RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"a\.wav: holds NaN"):
        load(tmp_path / "a.wav")


def test_check_leaves_only_the_longest_to_the_model() -> None:
    check_recording(read_recording((sine(-20.0, 300.0, 8_000), 8_000)))
    for samples in (sine(-20.0)[:11_999], np.zeros(RATE, np.float32)):
        with pytest.raises(AudioError):
            check_recording(read_recording((samples, RATE)))


def test_only_the_plain_preparation_cuts_silence() -> None:
    """0.15 s of silence remain on both sides of a second of tone."""
    tone = (0.1 * np.sin(np.arange(RATE) * 0.05)).astype(np.float32)
    samples = np.concatenate([np.zeros(RATE, np.float32), tone, np.zeros(RATE, np.float32)])
    assert len(load((samples, RATE))) == round(1.3 * RATE)
    assert len(load((samples, RATE), PUBLISHED)) == 3 * RATE
