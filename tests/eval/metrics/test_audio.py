"""The metrics against values worked out by hand, and what the tables do with failures.

Tests of the judging models run where CAT_TTS_EVAL_ASSETS names a folder of `python -m eval.assets`.
"""

from pathlib import Path

import numpy as np
import pytest

from eval import assets
from eval.common import results
from eval.metrics import audio as metrics

FOLDER = assets.default_folder()
needs_assets = pytest.mark.skipif(FOLDER is None, reason="CAT_TTS_EVAL_ASSETS names no folder")


def noise(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * rate)).astype(np.float32)


def voiced(seconds: float, rate: int) -> np.ndarray:
    """A buzz that PESQ takes for speech: harmonics of 120 Hz in bursts of a third of a second."""
    t = np.arange(int(seconds * rate)) / rate
    buzz = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 20))
    return (0.1 * buzz * (np.sin(2 * np.pi * 1.5 * t) > 0)).astype(np.float32)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors", "words"),
    [
        ("the cat sat", "the cat sat", 0, 3),
        ("the cat sat", "the cat", 1, 3),
        ("the cat sat", "the bat sat down", 2, 3),
        ("cat", "a b c", 3, 1),
        ("two words", "", 2, 2),
        ("Mr. Smith's COLOUR, twenty-one!", "mister smith is color 21", 0, 5),
        ("don't", "do not (laughs)", 0, 2),
    ],
)
def test_word_errors_by_hand(reference: str, hypothesis: str, errors: int, words: int) -> None:
    assert metrics.word_error_rate(reference, hypothesis) == metrics.WordErrors(errors=errors, words=words)


def test_the_corpus_rate_counts_words() -> None:
    found = [
        metrics.word_error_rate("one", "two"),
        metrics.word_error_rate("a cat sat on mats", "a cat sat on mats"),
    ]
    assert metrics.corpus_rate(found) == pytest.approx(1 / 6)


def test_a_reference_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match="no word"):
        metrics.word_error_rate("...", "hello")


def test_stoi_of_itself_is_one_and_falls_with_noise() -> None:
    audio = voiced(2, 24_000)
    worse = metrics.stoi(audio, audio + noise(2, 24_000), 24_000)
    assert metrics.stoi(audio, audio, 24_000) == pytest.approx(1, abs=1e-6)
    assert metrics.stoi(audio, audio[:-100] * 0.3, 24_000) == pytest.approx(1, abs=1e-3)
    assert 0 < worse < 0.95


def test_pesq_of_itself_is_the_top_of_its_scale() -> None:
    pytest.importorskip("pesq")
    audio = voiced(2, 24_000)
    assert metrics.pesq_wb(audio, audio, 24_000) == pytest.approx(4.644, abs=1e-3)
    assert metrics.pesq_nb(audio, audio, 24_000) == pytest.approx(4.549, abs=1e-3)
    assert metrics.pesq_wb(audio, audio + noise(2, 24_000), 24_000) < 2


@pytest.mark.parametrize("name", ["stoi", "pesq_wb", "pesq_nb"])
@pytest.mark.parametrize("problem", ["short", "empty", "nan"])
def test_undefined_metrics_say_so(name: str, problem: str) -> None:
    if name.startswith("pesq"):
        pytest.importorskip("pesq")
    reference = voiced(2, 16_000)
    degraded = {"short": reference[:600], "empty": reference[:0], "nan": reference * np.float32("nan")}[
        problem
    ]
    with pytest.raises(metrics.MetricError):
        getattr(metrics, name)(reference, degraded, 16_000)


def test_missing_assets_name_the_cure(tmp_path: Path) -> None:
    with pytest.raises(assets.AssetError, match=r"python -m eval\.assets"):
        metrics.SpeakerEncoder(tmp_path)
    with pytest.raises(assets.AssetError, match="CAT_TTS_EVAL_ASSETS"):
        results.require_assets(None)


def test_a_table_for_a_model_card() -> None:
    table = results.markdown_table(["depth", "wer", "stops"], [[8, 0.12345, {"end": 2}], [None, None, {}]])
    assert table.splitlines()[2:] == ["| 8 | 0.123 | end 2 |", "| - | - | - |"]


@needs_assets
def test_speaker_encoder_knows_itself_and_refuses_silence() -> None:
    assert FOLDER is not None
    encoder, audio = metrics.SpeakerEncoder(FOLDER), voiced(1, 24_000) + noise(1, 24_000) / 10
    assert encoder.similarity(audio, 24_000, metrics.resample(audio, 24_000), 16_000) == pytest.approx(
        1, abs=1e-3
    )
    assert encoder.similarity(audio, 24_000, audio * 0.1, 24_000) == pytest.approx(1, abs=1e-3)
    assert encoder.similarity(audio, 24_000, noise(1, 16_000), 16_000) < 0.95
    with pytest.raises(metrics.MetricError, match="silent"):
        encoder.embed(np.zeros(16_000, np.float32), 16_000)
