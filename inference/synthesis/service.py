"""An engine at work in a thread of its own, for any number of threads that want takes.

    with Service(synthesizer, slots=8) as service:
        with service.stream(synthesizer.request("Good morning.", voice)) as stream:
            for audio in stream:
                send(audio)

The engine runs ahead of its readers and never waits for one: a slow reader costs the others nothing, and the
length limit bounds what can pile up for it. One that leaves audio untouched for `patience` seconds is taken
for gone, and its take is cancelled.
"""

import atexit
import math
import threading
from dataclasses import replace

from inference.engine.engine import Engine
from inference.engine.job import Guard
from inference.engine.request import Request
from inference.engine.result import Take, TakeStream
from inference.synthesis.synthesizer import Synthesizer


class ServiceClosed(ValueError):
    """The service takes no more requests."""


class Service:
    """Makes up to `slots` takes at a time, while up to `waiting` more queue; of any thread."""

    def __init__(
        self,
        synthesizer: Synthesizer,
        *,
        slots: int = 8,
        waiting: int = 32,
        max_seconds: float = 120.0,
        patience: float = 60.0,
    ) -> None:
        """No take is longer than `max_seconds`, whatever is asked for."""
        if not max_seconds > 0 or not patience > 0:
            raise ValueError(f"max_seconds={max_seconds}, patience={patience}: give positive seconds")
        self.synthesizer, self.max_seconds, self.patience = synthesizer, max_seconds, patience
        self.engine = Engine(
            synthesizer.tts,
            synthesizer.tokenizer,
            slots=slots,
            waiting=waiting,
            weights=synthesizer.weights,
        )
        self.max_frames = max(1, math.floor(max_seconds * synthesizer.tokenizer.config.frame_rate))
        self._news, self._closing, self._finish = threading.Condition(), False, False
        self._worker = threading.Thread(target=self._work, name="cat-tts-service", daemon=True)
        self._worker.start()
        # A thread that is inside torch when Python goes down would take the process with it.
        atexit.register(self.close)

    def stream(self, request: Request, *, guard: Guard | None = None, chunk_frames: int = 1) -> TakeStream:
        """The audio of a request as it comes; closing the stream frees its slot before the next frame.

        EngineBusy when the queue is full, ServiceClosed after `close`.
        """
        request = replace(request, max_frames=min(request.max_frames, self.max_frames))
        self._check_open()
        job = self.synthesizer.job(request, guard)
        with self._news:
            self._check_open()
            ticket = self.engine.submit(job)
            self._news.notify()
        return TakeStream(
            request,
            ticket,
            self.synthesizer.tokenizer.config,
            advance=ticket.wait,
            release=lambda: None,
            chunk_frames=chunk_frames,
        )

    def take(self, request: Request, *, guard: Guard | None = None) -> Take:
        """The same, collected."""
        return self.stream(request, guard=guard).collect()

    def close(self, *, finish: bool = False) -> None:
        """Take no more requests; end takes under way with ServiceClosed, or `finish` them first."""
        with self._news:
            self._closing, self._finish = True, finish
            self._news.notify()
        self._worker.join()
        atexit.unregister(self.close)

    def _check_open(self) -> None:
        if self._closing:
            raise ServiceClosed("the service is closed: start another")
        self.engine.check_room()

    def _work(self) -> None:
        reason: Exception = ServiceClosed("the service was closed before this take was whole")
        try:
            while self._wait() and self.engine.fault is None:
                for ticket in self.engine.tickets:
                    if ticket.idle_seconds > self.patience:
                        ticket.cancel()
                self.engine.step()
        except BaseException as error:
            reason = RuntimeError(f"the service broke: {error!r}")
            raise
        finally:
            with self._news:
                self._closing = True
            self.engine.stop(self.engine.fault or reason)

    def _wait(self) -> bool:
        """Sleep until there is work; False when it is time to go."""
        with self._news:
            self._news.wait_for(lambda: self._closing or self.engine.busy)
            return self.engine.busy and (not self._closing or self._finish)

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
