"""The slope that tells drift from noise."""

import pytest

from eval.long_text import slope


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
