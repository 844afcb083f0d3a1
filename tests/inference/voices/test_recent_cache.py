"""A cache evicts what was not used for longest, and creates each value once."""

import threading

import pytest

from inference.voices.recent_cache import RecentCache


def test_the_least_recently_used_are_evicted_first() -> None:
    cache, created = RecentCache[list[int]](10, len), []

    def get(name: str, size: int) -> list[int]:
        def create() -> list[int]:
            created.append(name)
            return [0] * size

        return cache.get(name, create)

    for name in "aba":
        get(name, 4)
    get("c", 3)  # 11 in all: b, used longest ago, goes
    get("a", 4)
    get("c", 3)
    assert created == ["a", "b", "c"] and (cache.misses, cache.hits, len(cache)) == (3, 3, 2)
    get("b", 4)
    assert created == ["a", "b", "c", "b"] and len(cache) == 2
    get("huge", 99)
    get("huge", 99)
    assert created[4:] == ["huge"] and len(cache) == 1, "what is asked for is kept, whatever its size"


def test_errors_are_not_cached() -> None:
    cache = RecentCache[int](10, lambda _: 1)
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 // 0)
    assert len(cache) == 0 and cache.get("a", lambda: 5) == 5


def test_threads_with_the_same_request_wait_for_one_of_them() -> None:
    cache, started, go = RecentCache[int](10, lambda _: 1), threading.Barrier(4), threading.Event()

    def create() -> int:
        assert go.wait(10)
        return 5

    def ask() -> None:
        started.wait(10)
        answers.append(cache.get("slow", create))

    answers: list[int] = []
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    started.wait(10)
    assert cache.get("quick", lambda: 7) == 7, "others are not held up"
    go.set()
    for thread in threads:
        thread.join()
    assert answers == [5, 5, 5] and (cache.misses, cache.hits) == (2, 2)


def test_evicted_values_are_released_once_and_new_ones_stay() -> None:
    evicted: list[str] = []
    cache = RecentCache[str](2, lambda _: 1, evicted.append)

    def slow() -> str:
        for name in "abc":
            cache.get(name, lambda name=name: name)
        return "slow"

    assert cache.get("slow", slow) == "slow"  # the oldest until it is there, and the newest then
    assert evicted == ["a", "b"] and len(cache) == 2
    assert cache.get("c", lambda: "again") == "c" and evicted == ["a", "b"]
