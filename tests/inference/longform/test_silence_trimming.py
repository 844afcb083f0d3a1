"""Trimming of the ends of a segment in chunks: samples do not depend on the chunks."""

import numpy as np
import pytest
import torch

from inference.longform.silence_trimming import SilenceTrimmer, trim_and_fade
from tokenizer.io.audio import trim_silence

RATE = 24_000


def sound(seconds: float, level: float = 0.3) -> np.ndarray:
    return np.full(round(seconds * RATE), level, np.float32)


def quiet(seconds: float) -> np.ndarray:
    return sound(seconds, 0.0005)


SPEECH = np.concatenate([quiet(0.5), sound(0.2), quiet(0.3), sound(0.1), quiet(0.7)])


def test_silence_is_trimmed_at_the_ends_only() -> None:
    """80 ms remain; 5 ms are faded at both ends, and no sample between is changed."""
    trimmed = trim_and_fade(SPEECH, RATE)
    expected = SPEECH[round(0.42 * RATE) : round(1.18 * RATE)]
    assert len(trimmed) == len(expected) == round(0.76 * RATE)
    assert np.array_equal(trimmed[120:-120], expected[120:-120])
    half = np.cos(np.pi * (np.arange(120) + 0.5) / 120)
    np.testing.assert_allclose(trimmed[:120], (0.5 - 0.5 * half) * expected[:120], rtol=1e-5)
    np.testing.assert_allclose(trimmed[-120:], (0.5 + 0.5 * half) * expected[-120:], rtol=1e-5)


@pytest.mark.parametrize("chunk", [1, 100, 479, 480, 1920, 7001])
def test_samples_do_not_depend_on_chunks(chunk: int) -> None:
    trimmer, audio = SilenceTrimmer(RATE), SPEECH[: 16_000 if chunk == 1 else None]
    parts = [trimmer.feed(audio[start : start + chunk]) for start in range(0, len(audio), chunk)]
    assert np.array_equal(np.concatenate([*parts, trimmer.finish()]), trim_and_fade(audio, RATE))


def test_only_what_may_be_the_end_is_held_back() -> None:
    trimmer = SilenceTrimmer(RATE)
    assert len(trimmer.feed(quiet(2.0))) == 0
    assert len(trimmer.feed(sound(0.2))) == round(0.28 * RATE) - 120
    assert len(trimmer.feed(quiet(0.3))) == round(0.08 * RATE)  # 5 ms of sound, and 75 of the silence
    assert len(trimmer.feed(sound(0.02))) == round(0.24 * RATE)
    assert len(trimmer.finish()) == 120


def test_loud_speech_is_trimmed_as_by_trim_silence() -> None:
    noise = np.random.default_rng(0).uniform(-0.4, 0.4, RATE).astype(np.float32)
    audio = np.concatenate([quiet(0.3), noise, quiet(0.4)])
    trimmed = trim_silence(torch.from_numpy(audio), RATE, margin=0.08).numpy()
    assert np.array_equal(trim_and_fade(audio, RATE)[120:-120], trimmed[120:-120])


def test_quiet_audio_is_not_trimmed() -> None:
    assert len(trim_and_fade(quiet(0.5), RATE)) == RATE // 2
    assert len(trim_and_fade(np.zeros(0, np.float32), RATE)) == 0
    assert len(trim_and_fade(sound(0.001), RATE)) == 24
