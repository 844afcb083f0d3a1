"""What a server counts, for Prometheus."""

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
    """Counts of one server, in a registry of its own."""

    def __init__(self, engine: Engine, frame_rate: float) -> None:
        self.frame_rate = frame_rate
        self.registry = registry = CollectorRegistry()

        def named(kind: Callable[..., Counter], name: str, text: str, *labels: str) -> Counter:
            return kind(f"cat_tts_{name}", text, labels, registry=registry)

        self.requests = named(Counter, "requests", "Requests answered.", "route", "status")
        self.errors = named(
            Counter, "errors", "Requests refused or failed, by the code in the answer.", "code"
        )
        self.takes = named(Counter, "takes", "Takes that are over.", "stop_reason")
        self.frames = named(Counter, "frames", "Frames made.")
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

    def answered(self, scope: Scope, status: int) -> None:
        """Once for every answer; what no route serves is one route."""
        path = getattr(scope.get("route"), "path", "other")
        self.requests.labels(path, str(status)).inc()
        if "error_code" in scope:
            self.errors.labels(scope["error_code"]).inc()

    def exposition(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self.registry)


class Stopwatch:
    """Times an answer by the frames that its guards are shown."""

    def __init__(self, metrics: ServerMetrics) -> None:
        self.metrics = metrics
        self.frames, self._begin = 0, time.perf_counter()
        self._first = self._last = self._begin

    def watching(self, guard: Guard) -> Guard:
        """The guard, timed."""

        def watch(codes: Int[Tensor, " k"], audio: Float[np.ndarray, " s"]) -> StopReason | None:
            self.frames, self._last = self.frames + 1, time.perf_counter()
            self.metrics.frames.inc()
            if self.frames == 1:
                self._first = self._last
                self.metrics.ttfa.observe(self._first - self._begin)
            return guard(codes, audio)

        return watch

    def stop(self, reason: str) -> None:
        """The answer is over."""
        self.metrics.takes.labels(reason).inc()
        if self.frames > 1:
            seconds = (self.frames - 1) / self.metrics.frame_rate
            self.metrics.rtf.observe((self._last - self._first) / seconds)
