"""A take to be made, and what has come of it so far."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from cat_tts.generation.frame_decoder import Continuation
from tokenizer.layers.streaming import StreamCache

StopReason = Literal["end", "limit", "cancelled", "repetition", "silence"]
"""The model decided that the text is spoken; the length limit cut it off; its stream was closed; or a guard
found it repeating itself or silent."""

Guard = Callable[[Int[Tensor, " k"], Float[np.ndarray, " s"]], StopReason | None]
"""Is shown every frame of one take, its codes and its audio; a reason ends the take with that frame."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A take to be made."""

    continuation: Continuation
    context: StreamCache | None = None
    """The audio decoder's state behind the prompt, of one signal; None: the audio begins with the take."""
    guard: Guard | None = None


class Ticket:
    """One job on its way. The engine writes it, one other thread may read it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.codes: list[Int[Tensor, " k"]] = []
        self.audio: list[Float[np.ndarray, " s"]] = []
        self.stop_reason: StopReason | None = None
        self.error: Exception | None = None
        self.cancelled = False
        self._read, self._since = 0, time.monotonic()
        self._news = threading.Condition()

    @property
    def ended(self) -> bool:
        """No more will come."""
        return self.stop_reason is not None or self.error is not None

    @property
    def idle_seconds(self) -> float:
        """How long audio has been there that nobody came for."""
        with self._news:
            return time.monotonic() - self._since if len(self.audio) > self._read else 0.0

    def cancel(self) -> None:
        """Ask the engine to let go of it before the next frame."""
        self.cancelled = True

    def was_read(self, frames: int) -> None:
        """So many frames have reached their reader."""
        with self._news:
            self._read, self._since = frames, time.monotonic()

    def wait(self, frames: int) -> None:
        """Until so many are there, or no more will come."""
        with self._news:
            self._news.wait_for(lambda: len(self.audio) >= frames or self.ended)

    def add(self, codes: Int[Tensor, " k"], audio: Float[np.ndarray, " s"]) -> None:
        with self._news:
            if self._read == len(self.audio):
                self._since = time.monotonic()
            self.codes.append(codes)
            self.audio.append(audio)
            self._news.notify_all()

    def end(self, outcome: StopReason | Exception) -> None:
        with self._news:
            if isinstance(outcome, Exception):
                self.error = outcome
            else:
                self.stop_reason = outcome
            self._news.notify_all()
