"""A job of the engine, and the handle that holds its output so far."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from cat_tts.generation.continuation import Continuation
from tokenizer.layers.streaming import StreamCache

StopReason = Literal["end", "limit", "cancelled", "repetition", "silence"]
"""The model decided that the text is spoken; the length limit was reached; the stream was closed; or a guard
detected repetition or silence."""

Guard = Callable[[Int[Tensor, " k"], Float[np.ndarray, " s"]], StopReason | None]
"""A stopping rule that is called with the codes [k] and the audio [s] of every frame of one job; a reason
ends the job with that frame."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the engine needs to synthesize one request."""

    continuation: Continuation
    context: StreamCache | None = None
    """The state of the audio decoder after the prompt, for one signal; None starts from an empty state."""
    guard: Guard | None = None


class RequestHandle:
    """The output of one job while it runs: the engine writes it, and one other thread may read it."""

    def __init__(self, job: Job) -> None:
        """Create the handle of a job that has no output yet."""
        self.job = job
        self.codes: list[Int[Tensor, " k"]] = []
        self.audio: list[Float[np.ndarray, " s"]] = []
        self.stop_reason: StopReason | None = None
        self.error: Exception | None = None
        self.cancelled = False
        self._read, self._since = 0, time.monotonic()
        self._changed = threading.Condition()

    @property
    def ended(self) -> bool:
        """Whether no more frames will come."""
        return self.stop_reason is not None or self.error is not None

    @property
    def idle_seconds(self) -> float:
        """For how many seconds finished audio has been waiting for its reader."""
        with self._changed:
            return time.monotonic() - self._since if len(self.audio) > self._read else 0.0

    def cancel(self) -> None:
        """Ask the engine to drop this job before the next frame."""
        self.cancelled = True

    def was_read(self, frames: int) -> None:
        """Record that the reader has received the first `frames` frames."""
        with self._changed:
            self._read, self._since = frames, time.monotonic()

    def wait(self, frames: int) -> None:
        """Block until `frames` frames exist or the job has ended."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.audio) >= frames or self.ended)

    def add(self, codes: Int[Tensor, " k"], audio: Float[np.ndarray, " s"]) -> None:
        """Append one frame: its codes [k], and its audio [s] in [-1, 1]."""
        with self._changed:
            if self._read == len(self.audio):
                self._since = time.monotonic()
            self.codes.append(codes)
            self.audio.append(audio)
            self._changed.notify_all()

    def end(self, outcome: StopReason | Exception) -> None:
        """End the job with a stop reason or an error, and wake up its reader."""
        with self._changed:
            if isinstance(outcome, Exception):
                self.error = outcome
            else:
                self.stop_reason = outcome
            self._changed.notify_all()
