import pytest
import torch

from training.speakers.verification import equal_error_rate, verify


def test_equal_error_rate_by_hand() -> None:
    """At a threshold of 0.5 one of four pairs is refused and one of four taken: a quarter."""
    same = torch.tensor([0.9, 0.8, 0.7, 0.2])
    different = torch.tensor([0.6, 0.4, 0.3, 0.1])
    assert equal_error_rate(same, different) == pytest.approx(0.25)


def test_rates_at_the_ends() -> None:
    low, high = torch.tensor([0.1, 0.2]), torch.tensor([0.8, 0.9])
    assert equal_error_rate(high, low) == 0
    assert equal_error_rate(low, high) == 1
    assert equal_error_rate(torch.full((8,), 0.5), torch.full((5,), 0.5)) == pytest.approx(0.5)
    uneven = equal_error_rate(torch.tensor([0.9]), torch.tensor([0.95, 0.1, 0.1, 0.1]))
    assert uneven == pytest.approx(0.125)  # none missed, a quarter taken


def test_pairs_by_hand() -> None:
    east, north = [1.0, 0.0], [0.0, 1.0]
    found = verify(torch.tensor([east, east, north]), ["a", "a", "b"])
    assert found == {"eer": 0.0, "same": 1.0, "different": 0.0}
    assert verify(torch.tensor([east, north, east]), ["a", "a", "b"])["eer"] >= 0.5


def test_pairs_of_both_kinds_are_required() -> None:
    with pytest.raises(ValueError, match="0 pairs of one speaker and 1 of two"):
        verify(torch.eye(2), ["a", "b"])
    with pytest.raises(ValueError, match="1 pairs of one speaker and 0 of two"):
        verify(torch.eye(2), ["a", "a"])
