"""An engine that runs in a thread of its own, for any number of threads that request speech.

    with Service(synthesizer, slots=8) as service:
        with service.stream(synthesizer.request("Good morning.", voice)) as stream:
            for audio in stream:
                send(audio)

The engine runs ahead of its readers and never waits for one: a slow reader does not delay the others, and the
length limit bounds what is buffered for it. A reader that leaves audio unread for `patience` seconds is
considered gone, and its request is cancelled.
"""

import atexit
import math
import threading
from dataclasses import replace

from inference.engine.engine import Engine
from inference.engine.job import Guard
from inference.engine.request import Request
from inference.engine.result import RequestStream
from inference.synthesis.models import SpeechModels


class ServiceClosed(ValueError):
    """The service accepts no more requests."""


class Service:
    """Synthesizes up to `slots` requests at a time, while up to `waiting` more queue; for any thread."""

    def __init__(
        self,
        models: SpeechModels,
        *,
        slots: int = 8,
        waiting: int = 32,
        max_seconds: float = 120.0,
        patience: float = 60.0,
    ) -> None:
        """Start the thread of the engine.

        Args:
            models: What speaks.
            slots: Requests that run at the same time.
            waiting: Requests that may wait for a slot.
            max_seconds: Length limit of every result, whatever the request says.
            patience: Seconds after which a request is cancelled whose audio nobody reads.

        Raises:
            ValueError: a number is out of range.
        """
        if not max_seconds > 0 or not patience > 0:
            raise ValueError(f"max_seconds={max_seconds}, patience={patience}: give positive seconds")
        self.models, self.max_seconds, self.patience = models, max_seconds, patience
        self.engine = Engine(
            models.tts,
            models.tokenizer,
            slots=slots,
            waiting=waiting,
            weights=models.weights,
        )
        self.max_frames = max(1, math.floor(max_seconds * models.tokenizer.config.frame_rate))
        self._changed, self._closing, self._finish = threading.Condition(), False, False
        self._worker = threading.Thread(target=self._work, name="cat-tts-service", daemon=True)
        self._worker.start()
        # A thread inside torch when Python shuts down would crash the process.
        atexit.register(self.close)

    def stream(self, request: Request, *, guard: Guard | None = None, chunk_frames: int = 1) -> RequestStream:
        """Synthesize a request as a stream; closing the stream frees its slot before the next frame.

        Args:
            request: What to synthesize.
            guard: A stopping rule that may end it early.
            chunk_frames: Frames that the stream returns at a time.

        Returns:
            The audio as it is synthesized.

        Raises:
            EngineBusy: all slots are in use and the queue is full.
            ServiceClosed: the service was closed.
        """
        request = replace(request, max_frames=min(request.max_frames, self.max_frames))
        self._check_open()
        job = self.models.job(request, guard)
        with self._changed:
            self._check_open()
            handle = self.engine.submit(job)
            self._changed.notify()
        return RequestStream(
            request,
            handle,
            self.models.tokenizer.config,
            advance=handle.wait,
            release=lambda: None,
            chunk_frames=chunk_frames,
        )

    def close(self, *, finish: bool = False) -> None:
        """Accept no more requests; end running ones with ServiceClosed, or `finish` them first."""
        with self._changed:
            self._closing, self._finish = True, finish
            self._changed.notify()
        self._worker.join()
        atexit.unregister(self.close)

    def _check_open(self) -> None:
        if self._closing:
            raise ServiceClosed("the service is closed: start another")
        self.engine.check_room()

    def _work(self) -> None:
        reason: Exception = ServiceClosed("the service was closed before this request was complete")
        try:
            while self._wait() and self.engine.fault is None:
                for handle in self.engine.handles:
                    if handle.idle_seconds > self.patience:
                        handle.cancel()
                self.engine.step()
        except BaseException as error:
            reason = RuntimeError(f"the service broke: {error!r}")
            raise
        finally:
            with self._changed:
                self._closing = True
            self.engine.stop(self.engine.fault or reason)

    def _wait(self) -> bool:
        """Block until there are requests; return False when the thread should end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self.engine.busy)
            return self.engine.busy and (not self._closing or self._finish)

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
