"""Limits of what a request may cost, and of how many requests a client may send."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

PROMPT_SILENCE_SECONDS = 10.0
"""Silence that an upload may have, and that is trimmed, beside a prompt of the greatest length, which is the
model's (`SpeechModels.max_prompt_seconds`)."""
MAX_CLIENTS = 10_000
"""Clients whose buckets are remembered; the one unseen for longest is dropped, and starts with a full one."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a request, checked when they are set."""

    max_characters: int = 4096
    """Longest text, in characters."""
    max_answer_seconds: float = 900.0
    """Longest speech of a response, estimated from its text, pauses included."""
    max_body_bytes: int = 2**17
    """Largest request for speech."""
    max_upload_bytes: int = 25 * 2**20
    """Largest request that adds a voice."""
    max_voices: int = 1000
    """Most voices that the folder may hold."""
    rate_per_minute: float = 0.0
    """Requests that one address may send, a minute's worth at once; 0: any number."""
    body_seconds: float = 30.0
    """Time in which a request must have arrived."""
    queue_seconds: float = 60.0
    """Longest time that a request may wait for its first audio."""
    send_seconds: float = 60.0
    """Longest time that a client may leave what was sent to it unread."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (0 <= value < math.inf) or (value == 0 and name != "rate_per_minute"):
                raise ValueError(f"{name}={value}: give a positive number")


class RateLimiter:
    """A token bucket for every client: a request takes one token, and they are refilled at a constant rate.

    Args:
        per_minute: Tokens that are refilled in a minute, and that a bucket holds; 0 means no limit.
        clock: Returns the time in seconds.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute, self.size, self._clock = per_minute, max(1.0, per_minute), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_seconds(self, client: str) -> float:
        """Take a token of the client if there is one.

        Args:
            client: The address of the client.

        Returns:
            0 if a token was taken, else the seconds until there will be one.
        """
        if not self.per_minute:
            return 0.0
        now = self._clock()
        tokens, since = self._buckets.pop(client, (self.size, now))
        tokens = min(self.size, tokens + (now - since) * self.per_minute / 60)
        wait = 0.0 if tokens >= 1 else (1 - tokens) * 60 / self.per_minute
        self._buckets[client] = (tokens - (wait == 0), now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return wait
