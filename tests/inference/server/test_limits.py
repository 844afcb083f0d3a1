"""Buckets, by a clock of the test."""

import pytest

from inference.server.limits import KEPT_CLIENTS, Buckets, Limits


def test_buckets_by_hand() -> None:
    now = [0.0]
    buckets = Buckets(6, lambda: now[0])
    assert [buckets.wait_seconds("a") for _ in range(7)] == [0] * 6 + [10]
    assert buckets.wait_seconds("b") == 0, "another client has a bucket of its own"
    now[0] = 4
    assert buckets.wait_seconds("a") == pytest.approx(6), "what is refused costs nothing"
    now[0] = 10
    assert [buckets.wait_seconds("a") for _ in range(2)] == [0, pytest.approx(10)]
    now[0] = 10_000
    assert [buckets.wait_seconds("a") for _ in range(7)] == [0] * 6 + [pytest.approx(10)], "full, not more"


def test_less_than_one_a_minute() -> None:
    now = [0.0]
    buckets = Buckets(0.5, lambda: now[0])
    assert (buckets.wait_seconds("a"), buckets.wait_seconds("a")) == (0, 120)


def test_no_limit() -> None:
    assert {Buckets(0).wait_seconds("a") for _ in range(1000)} == {0}


def test_the_longest_gone_client_is_forgotten() -> None:
    buckets = Buckets(1, lambda: 0.0)
    for client in range(KEPT_CLIENTS + 1):
        assert buckets.wait_seconds(str(client)) == 0
    assert buckets.wait_seconds(str(KEPT_CLIENTS)) == 60
    assert buckets.wait_seconds("0") == 0


@pytest.mark.parametrize(
    "change", [{"max_characters": 0}, {"body_seconds": -1}, {"queue_seconds": float("inf")}]
)
def test_limits_that_cannot_be(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(change))}=.*: give a positive number"):
        Limits(**change)  # pyright: ignore[reportArgumentType]
