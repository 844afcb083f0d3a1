"""The slope that tells drift from noise, and the segments that it is computed of."""

from argparse import Namespace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from eval.long_text import measure, slope
from eval.metrics.audio import MetricError, SpeakerEncoder
from inference import SynthesisOptions, Synthesizer
from inference.longform.silence_trimming import trim_and_fade


def test_slope_by_hand() -> None:
    """1, 3 and 2 at 0, 1 and 3: the line rises 3/14 a step, and misses the values by 25/14 in squares."""
    rise, error = 3 / 14, (25 / 14 / (14 / 3)) ** 0.5
    low, high = 100 * (rise - 1.96 * error), 100 * (rise + 1.96 * error)
    expected = {"mean": 2.0, "per_100": 100 * rise, "low": low, "high": high}
    assert slope([1.0, 3.0, None, 2.0]) == pytest.approx(expected)


def test_a_line_is_found_exactly() -> None:
    found = slope([0.5 + 0.25 * n for n in range(9)])
    assert found == pytest.approx({"mean": 1.5, "per_100": 25, "low": 25, "high": 25})


def test_two_values_have_no_slope() -> None:
    assert slope([1.0, None, 2.0]) == {"mean": 1.5, "per_100": None, "low": None, "high": None}


class LengthEncoder:
    """Knows a speaker by nothing but the length of the audio."""

    def embed(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        if sample_rate == 24_000 and len(audio) < 4 * 1920:
            raise MetricError("similarity is undefined: the audio is too short")
        return np.array([len(audio) / sample_rate])


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")
def test_every_segment_is_measured_once(bundle: Path, prompt_file: Path, tmp_path: Path) -> None:
    """Speech without its pauses, and as often as `Synthesizer.synthesize` tried."""
    synthesizer = Synthesizer.from_pretrained(bundle, device="cpu")
    text = "[pause 0.1s] The old dog. [pause 0.3s] It is 5 o'clock. [pause 0.3s] A red fox."
    (tmp_path / "text.txt").write_text(text)
    options = Namespace(text=tmp_path / "text.txt", prompt=prompt_file, prompt_text="What it says.", depth=2)
    records = measure(synthesizer, cast(SpeakerEncoder, LengthEncoder()), options)
    voice = synthesizer.load_voice(prompt_file, "What it says.")
    segments = synthesizer.synthesize(text, voice, SynthesisOptions(depth=2)).segments
    assert [record["text"] for record in records] == ["The old dog.", "It is five o'clock.", "A red fox."]
    for record, segment in zip(records, segments, strict=True):
        seconds = len(trim_and_fade(segment.audio, 24_000)) / 24_000
        assert (record["seconds"], record["attempts"]) == (seconds, segment.attempts)
        assert record["stop_reason"] == segment.stop_reason and record["rtf"] > 0
        similarity = None if seconds < 0.32 else pytest.approx(1.2 * seconds)  # the prompt lasts 1.2 s
        assert record["similarity"] == similarity
