"""The ends of a piece, told while it is made: the same samples whatever the chunks."""

import numpy as np
import pytest
import torch

from inference.longform.silence_trimming import Edges, edged
from tokenizer.io.audio import trim_silence

RATE = 24_000


def sound(seconds: float, level: float = 0.3) -> np.ndarray:
    return np.full(round(seconds * RATE), level, np.float32)


def quiet(seconds: float) -> np.ndarray:
    return sound(seconds, 0.0005)


SPEECH = np.concatenate([quiet(0.5), sound(0.2), quiet(0.3), sound(0.1), quiet(0.7)])


def test_silence_at_the_ends_goes_and_that_inside_stays() -> None:
    """80 ms of it are left; 5 ms fade at both ends, and no sample between is touched."""
    heard = edged(SPEECH, RATE)
    kept = SPEECH[round(0.42 * RATE) : round(1.18 * RATE)]
    assert len(heard) == len(kept) == round(0.76 * RATE)
    assert np.array_equal(heard[120:-120], kept[120:-120])
    half = np.cos(np.pi * (np.arange(120) + 0.5) / 120)
    np.testing.assert_allclose(heard[:120], (0.5 - 0.5 * half) * kept[:120], rtol=1e-5)
    np.testing.assert_allclose(heard[-120:], (0.5 + 0.5 * half) * kept[-120:], rtol=1e-5)


@pytest.mark.parametrize("chunk", [1, 100, 479, 480, 1920, 7001])
def test_the_chunks_change_no_sample(chunk: int) -> None:
    edges, audio = Edges(RATE), SPEECH[: 16_000 if chunk == 1 else None]
    parts = [edges.feed(audio[start : start + chunk]) for start in range(0, len(audio), chunk)]
    assert np.array_equal(np.concatenate([*parts, edges.finish()]), edged(audio, RATE))


def test_what_may_be_the_end_is_held_back_and_nothing_else() -> None:
    edges = Edges(RATE)
    assert len(edges.feed(quiet(2.0))) == 0
    assert len(edges.feed(sound(0.2))) == round(0.28 * RATE) - 120
    assert len(edges.feed(quiet(0.3))) == round(0.08 * RATE)  # 5 ms of sound, and 75 of the silence
    assert len(edges.feed(sound(0.02))) == round(0.24 * RATE)
    assert len(edges.finish()) == 120


def test_of_loud_speech_it_is_what_trim_silence_leaves() -> None:
    noise = np.random.default_rng(0).uniform(-0.4, 0.4, RATE).astype(np.float32)
    audio = np.concatenate([quiet(0.3), noise, quiet(0.4)])
    trimmed = trim_silence(torch.from_numpy(audio), RATE, margin=0.08).numpy()
    assert np.array_equal(edged(audio, RATE)[120:-120], trimmed[120:-120])


def test_where_nothing_is_loud_all_is_heard() -> None:
    assert len(edged(quiet(0.5), RATE)) == RATE // 2
    assert len(edged(np.zeros(0, np.float32), RATE)) == 0
    assert len(edged(sound(0.001), RATE)) == 24
