"""The estimated speed depends on the depth, and agrees with what is measured."""

import time
from pathlib import Path

import pytest

from inference import Synthesizer
from inference.synthesis.speed_estimate import Speed, measure


def test_rtf_is_time_by_time() -> None:
    speed = Speed(base=0.02, per_codebook=0.005, frame_rate=12.5)
    assert speed.rtf(4) == pytest.approx(0.5) and speed.rtf(12) == pytest.approx(1.0)


def test_measured_speed_is_positive_and_not_above_what_measuring_took(bundle: Path) -> None:
    synthesizer = Synthesizer.from_pretrained(bundle, device="cpu")
    start = time.perf_counter()
    speed = measure(synthesizer)
    elapsed = time.perf_counter() - start
    assert speed.frame_rate == 12.5 and speed.per_codebook >= 0
    assert 0 < speed.rtf(1) <= speed.rtf(6) < elapsed * 12.5
