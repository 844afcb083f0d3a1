"""The metrics of a server, for Prometheus."""

import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import Scope
from torch import Tensor

from inference.engine.engine import Engine
from inference.engine.job import Guard, StopReason

TTFA_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)
RTF = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5)


class ServerMetrics:
    """The metrics of one server, in a registry of their own.

    Args:
        engine: Is asked how many takes are active and queued whenever the metrics are read.
        frame_rate: Frames of audio in a second.
    """

    def __init__(self, engine: Engine, frame_rate: float) -> None:
        self.frame_rate = frame_rate
        self.registry = registry = CollectorRegistry()

        def make(kind: Callable[..., Counter], name: str, text: str, *labels: str) -> Counter:
            return kind(f"cat_tts_{name}", text, labels, registry=registry)

        self.requests = make(Counter, "requests", "Requests answered.", "route", "status")
        self.errors = make(
            Counter, "errors", "Requests refused or failed, by the code in the answer.", "code"
        )
        self.takes = make(Counter, "takes", "Takes that are over.", "stop_reason")
        self.frames = make(Counter, "frames", "Frames made.")
        self.ttfa = Histogram(
            "cat_tts_ttfa_seconds",
            "From a request to the first sound of its take, time in the queue included.",
            buckets=TTFA_SECONDS,
            registry=registry,
        )
        self.rtf = Histogram(
            "cat_tts_rtf",
            "Seconds that the frames behind the first took, for a second of their audio.",
            buckets=RTF,
            registry=registry,
        )
        for name, text, value in (
            ("active", "Takes being made.", lambda: engine.active),
            ("queued", "Takes that wait for a slot.", lambda: engine.queued),
            ("slots", "Takes that can be made at once.", lambda: engine.slots),
        ):
            Gauge(f"cat_tts_{name}", text, registry=registry).set_function(value)

    def count_response(self, scope: Scope, status: int) -> None:
        """Count a response; all paths that no route serves count as one route.

        Args:
            scope: The ASGI scope of the request.
            status: The HTTP status of the response.
        """
        path = getattr(scope.get("route"), "path", "other")
        self.requests.labels(path, str(status)).inc()
        if "error_code" in scope:
            self.errors.labels(scope["error_code"]).inc()

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self.registry)


class Stopwatch:
    """Times a response by the frames that its guards see."""

    def __init__(self, metrics: ServerMetrics) -> None:
        self.metrics = metrics
        self.frames, self._start = 0, time.perf_counter()
        self._first = self._last = self._start

    def timed(self, guard: Guard | None) -> Guard:
        """Return a guard that times and counts every frame, and decides as the given one."""

        def timed_guard(codes: Int[Tensor, " k"], audio: Float[np.ndarray, " s"]) -> StopReason | None:
            self.frames, self._last = self.frames + 1, time.perf_counter()
            self.metrics.frames.inc()
            if self.frames == 1:
                self._first = self._last
                self.metrics.ttfa.observe(self._first - self._start)
            return guard(codes, audio) if guard else None

        return timed_guard

    def stop(self, reason: str) -> None:
        """Record that the response has ended.

        Args:
            reason: Why it ended, as a label of the metric.
        """
        self.metrics.takes.labels(reason).inc()
        if self.frames > 1:
            seconds = (self.frames - 1) / self.metrics.frame_rate
            self.metrics.rtf.observe((self._last - self._first) / seconds)
