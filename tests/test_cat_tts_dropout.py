import pytest
import torch

from cat_tts.dropout import prefix_mask, sample_depths

DRAWS = 40_000


def frequencies(p: float, *, reach_last: bool) -> torch.Tensor:
    depth = sample_depths(DRAWS, 4, p, torch.Generator().manual_seed(3), reach_last=reach_last)
    counts = torch.bincount(depth, minlength=5)
    assert depth.dtype == torch.int64 and counts[0] == 0 and len(counts) == 5
    return counts[1:] / DRAWS


@pytest.mark.parametrize(
    ("p", "reach_last", "expected"),
    [
        (0.0, True, [0, 0, 0, 1]),
        (0.5, True, [1 / 8, 1 / 8, 1 / 8, 5 / 8]),
        (1.0, True, [1 / 4, 1 / 4, 1 / 4, 1 / 4]),
        (0.0, False, [0, 0, 0, 1]),
        (0.5, False, [1 / 6, 1 / 6, 1 / 6, 1 / 2]),  # eq. 7
        (1.0, False, [1 / 3, 1 / 3, 1 / 3, 0]),  # the last codebook would never be trained
    ],
)
def test_frequencies(p: float, reach_last: bool, expected: list[float]) -> None:
    """Within 4 standard deviations, and impossible depths never."""
    drawn, wanted = frequencies(p, reach_last=reach_last), torch.tensor(expected)
    spread = (wanted * (1 - wanted) / DRAWS).sqrt()
    assert ((drawn - wanted).abs() <= 4 * spread).all(), drawn


def test_same_generator_same_depths() -> None:
    first, again, other = (
        sample_depths(50, 32, 1.0, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_one_codebook_leaves_no_choice() -> None:
    assert sample_depths(3, 1, 1.0, torch.Generator()).tolist() == [1, 1, 1]


@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
def test_p_must_be_a_probability(p: float) -> None:
    with pytest.raises(ValueError, match=f"p={p} is no probability: give 0 to 1"):
        sample_depths(2, 4, p, torch.Generator())


def test_prefix_mask_by_hand() -> None:
    assert prefix_mask(torch.tensor([1, 3, 2]), 3).int().tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 0]]
