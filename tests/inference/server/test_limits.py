"""Buckets, by a clock of the test."""

import pytest

from inference.server.limits import MAX_CLIENTS, Limits, RateLimiter


def test_buckets_by_hand() -> None:
    now = [0.0]
    rate_limiter = RateLimiter(6, lambda: now[0])
    assert [rate_limiter.wait_seconds("a") for _ in range(7)] == [0] * 6 + [10]
    assert rate_limiter.wait_seconds("b") == 0, "another client has a bucket of its own"
    now[0] = 4
    assert rate_limiter.wait_seconds("a") == pytest.approx(6), "what is refused costs nothing"
    now[0] = 10
    assert [rate_limiter.wait_seconds("a") for _ in range(2)] == [0, pytest.approx(10)]
    now[0] = 10_000
    assert [rate_limiter.wait_seconds("a") for _ in range(7)] == [0] * 6 + [pytest.approx(10)], (
        "full, not more"
    )


def test_less_than_one_a_minute() -> None:
    now = [0.0]
    rate_limiter = RateLimiter(0.5, lambda: now[0])
    assert (rate_limiter.wait_seconds("a"), rate_limiter.wait_seconds("a")) == (0, 120)


def test_no_limit() -> None:
    assert {RateLimiter(0).wait_seconds("a") for _ in range(1000)} == {0}


def test_the_longest_gone_client_is_forgotten() -> None:
    rate_limiter = RateLimiter(1, lambda: 0.0)
    for client in range(MAX_CLIENTS + 1):
        assert rate_limiter.wait_seconds(str(client)) == 0
    assert rate_limiter.wait_seconds(str(MAX_CLIENTS)) == 60
    assert rate_limiter.wait_seconds("0") == 0


@pytest.mark.parametrize(
    "change", [{"max_characters": 0}, {"body_seconds": -1}, {"queue_seconds": float("inf")}]
)
def test_limits_that_cannot_be(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(change))}=.*: give a positive number"):
        Limits(**change)  # pyright: ignore[reportArgumentType]
