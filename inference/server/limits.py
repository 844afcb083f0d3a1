"""What a server takes on, and how often a client may come."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

KEPT_CLIENTS = 10_000
"""Clients whose buckets are remembered; who has not come for longer than those starts with a full one."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may cost."""

    max_characters: int = 4096
    """Of a text."""
    max_answer_seconds: float = 900.0
    """About how long the speech of an answer may last, with the pauses in its text."""
    max_body_bytes: int = 2**17
    """Of a request for speech."""
    max_upload_bytes: int = 25 * 2**20
    """Of a request that brings a voice."""
    max_voices: int = 1000
    """That the folder may hold."""
    rate_per_minute: float = 0.0
    """Requests that one address may send, a minute's worth at once; 0: as many as it likes."""
    body_seconds: float = 30.0
    """In which a request must have arrived."""
    queue_seconds: float = 60.0
    """For which a request may wait for its first sound."""
    send_seconds: float = 60.0
    """For which a client may leave what was sent to it untouched."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (0 <= value < math.inf) or (value == 0 and name != "rate_per_minute"):
                raise ValueError(f"{name}={value}: give a positive number")


class Buckets:
    """A bucket of tokens for every client: one a request, refilled at an even pace."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute, self.size, self._clock = per_minute, max(1.0, per_minute), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_seconds(self, client: str) -> float:
        """0 and one token taken; or, where there is none, when there will be."""
        if not self.per_minute:
            return 0.0
        now = self._clock()
        tokens, since = self._buckets.pop(client, (self.size, now))
        tokens = min(self.size, tokens + (now - since) * self.per_minute / 60)
        wait = 0.0 if tokens >= 1 else (1 - tokens) * 60 / self.per_minute
        self._buckets[client] = (tokens - (wait == 0), now)
        if len(self._buckets) > KEPT_CLIENTS:
            self._buckets.popitem(last=False)
        return wait
