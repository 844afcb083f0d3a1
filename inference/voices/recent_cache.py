"""A cache of values that are costly to create, for any thread."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass
class _Entry(Generic[Value]):
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: Value | None = None
    size: int = 0


class RecentCache(Generic[Value]):
    """A thread-safe cache of values that are costly to create, which evicts the least recently used.

    Threads that request the same value at once wait for one of them to create it; others are not delayed.
    The newest value is kept even where it alone exceeds the limit.
    """

    def __init__(
        self, limit: int, size: Callable[[Value], int], release: Callable[[Value], object] | None = None
    ) -> None:
        """Create an empty cache.

        Args:
            limit: Largest sum of the sizes of all values.
            size: Returns the size of a value.
            release: Called with each value that was evicted.
        """
        self.limit, self.misses, self.hits = limit, 0, 0
        """`misses` counts the values that were created, `hits` the requests that found one."""
        self._size, self._release, self._lock = size, release, threading.Lock()
        self._entries: OrderedDict[object, _Entry[Value]] = OrderedDict()

    def get(self, key: object, create: Callable[[], Value]) -> Value:
        """Return the value of a key, and create it where it is missing.

        Args:
            key: What identifies the value.
            create: Returns the value; its errors are passed on, and then nothing is cached.

        Returns:
            The cached or the created value.
        """
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
        with entry.lock:
            if entry.value is None:
                try:
                    entry.value = create()
                except BaseException:
                    with self._lock:
                        self._entries.pop(key, None)
                    raise
                entry.size = self._size(entry.value)
                self.misses += 1
            else:
                self.hits += 1
            value = entry.value
        evicted: list[Value] = []
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            total = sum(entry.size for entry in self._entries.values())
            for old_key, oldest in list(self._entries.items())[:-1]:
                if total > self.limit and oldest.value is not None:  # None is being created
                    del self._entries[old_key]
                    total -= oldest.size
                    evicted.append(oldest.value)
        if self._release is not None:
            for old_value in evicted:
                self._release(old_value)
        return value

    def __len__(self) -> int:
        return len(self._entries)
