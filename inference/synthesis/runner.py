"""What runs requests: an engine that its readers advance, or a service with a thread of its own."""

from typing import Protocol

from inference.engine.engine import Engine
from inference.engine.job import Guard
from inference.engine.request import Request
from inference.engine.result import RequestStream
from inference.synthesis.models import SpeechModels

MAX_OPEN_STREAMS = 1000
"""Streams of a local runner that may be open and unread."""


class Runner(Protocol):
    """Models, and a way to synthesize requests with them."""

    models: SpeechModels

    def stream(self, request: Request, *, guard: Guard | None = None, chunk_frames: int = 1) -> RequestStream:
        """Start to synthesize a request.

        Args:
            request: What to synthesize.
            guard: A stopping rule that may end it early.
            chunk_frames: Frames that the stream returns at a time.

        Returns:
            The audio as it is synthesized.

        Raises:
            EngineBusy: there is no room for another request.
        """
        ...


class LocalRunner:
    """An engine without a thread: whoever reads a stream computes the next frame of all that are open."""

    def __init__(self, models: SpeechModels, slots: int = 1) -> None:
        """Create an engine that synthesizes `slots` requests at a time, in the order of their start."""
        self.models = models
        self.engine = Engine(
            models.tts, models.tokenizer, slots=slots, waiting=MAX_OPEN_STREAMS, weights=models.weights
        )

    def stream(self, request: Request, *, guard: Guard | None = None, chunk_frames: int = 1) -> RequestStream:
        """Start to synthesize a request, see `Runner.stream`."""
        handle = self.engine.submit(self.models.job(request, guard))
        return RequestStream(
            request,
            handle,
            self.models.tokenizer.config,
            advance=lambda _: self.engine.step_until(handle),
            release=self.engine.release,
            chunk_frames=chunk_frames,
        )
