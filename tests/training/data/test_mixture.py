from pathlib import Path

import numpy as np
import pytest

from training.data.mixture import Mixture, epoch_indices, mixture, read_mixture, write_mixture

SOURCES = ["big"] * 90 + ["small"] * 10
FRAMES = np.full(100, 20)


def drawn(epoch: int, chosen: Mixture, seed: int = 0) -> np.ndarray:
    return epoch_indices(SOURCES, FRAMES, chosen, seed=seed, epoch=epoch)


def test_shares_by_hand() -> None:
    counts = {"a": 900.0, "b": 100.0}
    assert mixture(counts, Mixture()) == pytest.approx({"a": 0.9, "b": 0.1})
    assert mixture(counts, Mixture(temperature=2)) == pytest.approx({"a": 0.75, "b": 0.25})
    assert mixture(counts, Mixture(weights={"b": 9})) == pytest.approx({"a": 0.5, "b": 0.5})
    assert mixture(counts, Mixture(weights={"a": 0})) == {"a": 0.0, "b": 1.0}
    assert mixture(counts, Mixture(weights={"b": 3}, temperature=2)) == pytest.approx({"a": 0.5, "b": 0.5})
    assert mixture({**counts, "none": 0}, Mixture(temperature=2))["none"] == 0.0


def test_without_a_choice_an_epoch_is_all_there_is_in_another_order() -> None:
    orders = [drawn(epoch, Mixture()).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_an_epoch_is_mixed_as_chosen_and_a_function_of_seed_and_epoch() -> None:
    half = Mixture(weights={"small": 9})
    epochs = [drawn(epoch, half) for epoch in range(9)]
    for order in epochs:
        assert len(order) == 100 and (order >= 90).sum() == 50
        assert np.bincount(order[order >= 90])[90:].tolist() == [5] * 10
    assert len(set(epochs[0][epochs[0] < 90].tolist())) == 50  # none twice
    # in nine epochs of 50, the big corpus was gone through five times
    big = np.concatenate(epochs)
    assert np.bincount(big[big < 90]).tolist() == [5] * 90
    np.testing.assert_array_equal(drawn(4, half), epochs[4])
    assert drawn(4, half, seed=1).tolist() != epochs[4].tolist()


def test_shares_are_of_time_not_of_utterances() -> None:
    frames = np.array([100] * 10 + [10] * 100)
    sources = ["long"] * 10 + ["short"] * 100
    order = epoch_indices(sources, frames, Mixture(weights={"long": 3}), seed=0, epoch=0)
    assert frames[order].sum() == 2000
    assert (order < 10).sum() == 15 and (order >= 10).sum() == 50


def test_uneven_shares_are_made_up_for_in_later_epochs() -> None:
    third = Mixture(weights={"small": 0.33})
    counts = [int((drawn(epoch, third) >= 90).sum()) for epoch in range(30)]
    exact = 100 * 0.033 / 0.933
    assert set(counts) == {3, 4}
    assert sum(counts) == round(30 * exact)


@pytest.mark.parametrize(
    ("chosen", "complaint"),
    [
        ({"temperature": 0.5}, "temperature=0.5: give 1 or more"),
        ({"weights": {"a": -1.0}}, "weights {'a': -1.0}: give 0 or more"),
        ({"weights": {"c": 1.0}}, "weights for c: the corpora are a, b"),
        ({"weights": {"a": 0.0, "b": 0.0}}, "leave nothing of a, b"),
    ],
)
def test_what_cannot_be_mixed_is_refused(chosen: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        mixture({"a": 1, "b": 2}, Mixture(**chosen))


def test_the_choice_is_stored_beside_the_shards(tmp_path: Path) -> None:
    assert read_mixture(tmp_path) == Mixture()
    write_mixture(tmp_path, Mixture(weights={"a": 2.0}, temperature=1.5))
    assert read_mixture(tmp_path) == Mixture(weights={"a": 2.0}, temperature=1.5)
