import pytest
import torch

from cat_tts.sequences.sequence_dropout import deep_frames, retained_codes, sample_depths

DRAWS = 40_000


def frequencies(p: float, lowest: int, highest: int | None) -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    depth = sample_depths(DRAWS, 4, p, draw, lowest=lowest, highest=highest)
    counts = torch.bincount(depth, minlength=5)
    assert depth.dtype == torch.int64 and counts[0] == 0 and len(counts) == 5
    return counts[1:] / DRAWS


@pytest.mark.parametrize(
    ("p", "lowest", "highest", "expected"),
    [
        (0.0, 1, None, [0, 0, 0, 1]),
        (0.5, 1, None, [1 / 8, 1 / 8, 1 / 8, 5 / 8]),
        (1.0, 1, None, [1 / 4, 1 / 4, 1 / 4, 1 / 4]),
        (0.0, 1, 3, [0, 0, 0, 1]),
        (0.5, 1, 3, [1 / 6, 1 / 6, 1 / 6, 1 / 2]),  # eq. 7
        (1.0, 1, 3, [1 / 3, 1 / 3, 1 / 3, 0]),  # the last codebook would never be trained
        (0.5, 2, 3, [0, 1 / 4, 1 / 4, 1 / 2]),
    ],
)
def test_frequencies(p: float, lowest: int, highest: int | None, expected: list[float]) -> None:
    """Within 4 standard deviations, and impossible depths never."""
    drawn, wanted = frequencies(p, lowest, highest), torch.tensor(expected)
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


@pytest.mark.parametrize(("lowest", "highest"), [(0, 3), (3, 2), (1, 5)])
def test_depths_must_be_there(lowest: int, highest: int) -> None:
    with pytest.raises(ValueError, match=f"depths from {lowest} to {highest}: give a range within 1 .. 4"):
        sample_depths(2, 4, 1.0, torch.Generator(), lowest=lowest, highest=highest)


TARGETS = torch.tensor(
    [[[-100] * 4, [3, 5, 6, 7], [2, -100, -100, -100]], [[3, 1, 2, 3], [3, 4, 5, 6], [3, 7, 8, 9]]]
)
"""Text, a frame and the end; three frames."""


def test_retained_codes_by_hand() -> None:
    assert retained_codes(TARGETS, torch.tensor([2, 3])).tolist() == [[0, 2, 0], [3, 3, 3]]


def test_deep_frames_are_some_of_the_frames_and_each_as_often() -> None:
    drawn = [deep_frames(TARGETS, 0.5, torch.Generator().manual_seed(seed)) for seed in range(400)]
    shares = torch.stack(drawn).double().mean(0)
    assert {int(one.sum()) for one in drawn} == {2}
    assert shares[0, 0] == shares[0, 2] == 0
    torch.testing.assert_close(
        shares[[0, 1, 1, 1], [1, 0, 1, 2]], torch.full((4,), 0.5).double(), atol=0.1, rtol=0
    )
    assert int(deep_frames(TARGETS, 0.01, torch.Generator()).sum()) == 1  # never none
    with pytest.raises(ValueError, match="part=0 of the frames"):
        deep_frames(TARGETS, 0, torch.Generator())
