"""Continuous batching: takes join and leave between frames, each with its own depth, seed and length.

    engine = Engine(tts, tokenizer, slots=8)
    tickets = [engine.submit(job) for job in jobs]
    while engine.busy:
        engine.step()               # one frame of every take that has a slot: codes, then audio

What a take becomes does not depend on its neighbours. One thread calls `step`; `inference.service` is the
front for many. A fault in one job ends its ticket alone.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from cat_tts import CatTTS
from cat_tts.decoder import Continuation, FrameDecoder
from tokenizer import AudioTokenizer
from tokenizer.model import StreamCache

StopReason = Literal["end", "limit", "cancelled", "repetition", "silence"]
"""The model decided that the text is spoken; the length limit cut it off; its stream was closed; or a guard
found it repeating itself or silent."""

Guard = Callable[[Int[Tensor, " k"], Float[np.ndarray, " s"]], StopReason | None]
"""Is shown every frame of one take, its codes and its audio; a reason ends the take with that frame."""


class EngineBusy(ValueError):
    """All slots are taken and the queue is full."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A take to be made."""

    continuation: Continuation
    context: StreamCache | None = None
    """The audio decoder's state behind the prompt, of one signal; None: the audio begins with the take."""
    guard: Guard | None = None


class Ticket:
    """One job on its way: what has come of it so far. Written by the engine, read by anyone."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.codes: list[Int[Tensor, " k"]] = []
        self.audio: list[Float[np.ndarray, " s"]] = []
        self.stop_reason: StopReason | None = None
        self.error: Exception | None = None
        self.cancelled = False
        self.read_at = time.monotonic()
        self._news = threading.Condition()

    @property
    def ended(self) -> bool:
        """No more will come."""
        return self.stop_reason is not None or self.error is not None

    def cancel(self) -> None:
        """Ask the engine to let go of it before the next frame."""
        self.cancelled = True

    def was_read(self) -> None:
        self.read_at = time.monotonic()

    def wait(self, frames: int) -> None:
        """Until so many are there, or no more will come."""
        with self._news:
            self._news.wait_for(lambda: len(self.audio) >= frames or self.ended)

    def add(self, codes: Int[Tensor, " k"], audio: Float[np.ndarray, " s"]) -> None:
        with self._news:
            self.codes.append(codes)
            self.audio.append(audio)
            self._news.notify_all()

    def end(self, reason: StopReason) -> None:
        with self._news:
            self.stop_reason = reason
            self._news.notify_all()

    def fail(self, error: Exception) -> None:
        with self._news:
            self.error = error
            self._news.notify_all()


class Engine:
    """Slots for takes, and the queue before them."""

    def __init__(self, tts: CatTTS, tokenizer: AudioTokenizer, *, slots: int = 8, waiting: int = 32) -> None:
        if slots < 1 or waiting < 0:
            raise ValueError(f"slots={slots}, waiting={waiting}: give at least 1 slot and 0 places to wait")
        self.tts, self.tokenizer, self.slots, self.waiting = tts, tokenizer, slots, waiting
        self._queue: deque[Ticket] = deque()
        self._restart()

    @property
    def busy(self) -> bool:
        """There is something to do."""
        return bool(self._active or self._queue)

    @property
    def active(self) -> int:
        """Takes that have a slot."""
        return len(self._active)

    def submit(self, job: Job) -> Ticket:
        """Queue a job. ValueError where the engine could never serve it, EngineBusy where not now."""
        if len(self._queue) >= self.waiting + self.slots - len(self._active):
            raise EngineBusy(f"{self.slots} takes are being made and {self.waiting} wait: try again later")
        ticket = Ticket(job)
        self._queue.append(ticket)
        return ticket

    def step(self) -> None:
        """Let go of what was cancelled, fill free slots, and make the next frame of every take.

        What goes wrong for all ends all that are in a slot, with that error; those that wait are then served.
        """
        for slot in [slot for slot, ticket in self._active.items() if ticket.cancelled]:
            self._leave(slot, "cancelled")
        while self._queue and len(self._active) < self.slots:
            self._join(self._queue.popleft())
        if not self._active:
            return
        try:
            rows = {slot: row.cpu() for slot, row in self._decoder.step().items()}
            for slot, row in rows.items():
                if int(row[0]) == self.tts.config.tokens.audio_end:
                    self._leave(slot, "end")
            spoken = {slot: rows[slot][1:] for slot in self._active}
            audio = self._decode(spoken)
        except BaseException as error:
            self._fail_all(error)
            if not isinstance(error, Exception):
                raise
            return
        for slot, codes in spoken.items():
            self._deliver(slot, codes, audio[slot])

    def _deliver(self, slot: int, codes: Int[Tensor, " k"], audio: Float[np.ndarray, " s"]) -> None:
        ticket = self._active[slot]
        ticket.add(codes, audio)
        job = ticket.job
        try:
            reason = job.guard(codes, audio) if job.guard else None
        except Exception as error:
            self._decoder.leave(slot)
            self._active.pop(slot).fail(error)
            return
        if reason is None and len(ticket.audio) >= job.continuation.max_frames:
            reason = "limit"
        if reason is not None:
            self._leave(slot, reason)

    def _join(self, ticket: Ticket) -> None:
        if ticket.cancelled:
            ticket.end("cancelled")
            return
        try:
            slot = self._decoder.join(ticket.job.continuation)
        except Exception as error:
            ticket.fail(error)
            return
        context = ticket.job.context
        self._caches[slot] = self.tokenizer.decoder_cache(1) if context is None else _copied(context)
        self._active[slot] = ticket

    def _leave(self, slot: int, reason: StopReason) -> None:
        self._decoder.leave(slot)
        self._active.pop(slot).end(reason)

    def _decode(self, spoken: dict[int, Int[Tensor, " k"]]) -> dict[int, Float[np.ndarray, " s"]]:
        """The audio of one frame of every slot."""
        audio = {}
        for slot, codes in spoken.items():
            here = codes.to(self.tts.text_embedding.weight.device)[None, None]
            frame = self.tokenizer.decode(here, self._caches[slot])
            audio[slot] = frame[0].float().clamp(-1, 1).cpu().numpy()
        return audio

    def _fail_all(self, error: BaseException) -> None:
        shown = error if isinstance(error, Exception) else RuntimeError(f"stopped by {error!r}")
        failed = list(self._active.values())
        self._restart()
        for ticket in failed:
            ticket.fail(shown)

    def _restart(self) -> None:
        self._decoder = FrameDecoder(self.tts, self.slots)
        self._caches: dict[int, StreamCache] = {}
        self._active: dict[int, Ticket] = {}


def _copied(cache: StreamCache) -> StreamCache:
    from dataclasses import replace

    return [[replace(layer) for layer in stage] for stage in cache]
