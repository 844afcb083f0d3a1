"""Continuous batching: takes join and leave between frames, each with its own depth, seed and length.

    engine = Engine(tts, tokenizer, slots=8)
    tickets = [engine.submit(job) for job in jobs]
    while engine.busy:
        engine.step()               # one frame of every take that has a slot: codes, then audio

What a take becomes does not depend on its neighbours, and a fault in one job ends its ticket alone. `step` is
for one thread, which `inference.synthesis.service` has; `drive` lets the readers of tickets do the work by
turns.
"""

import threading
from collections import deque

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cat_tts import CatTTS
from cat_tts.generation.frame_decoder import FrameDecoder
from cat_tts.generation.int8_linear import Weights
from inference.engine.job import Job, StopReason, Ticket
from tokenizer import AudioTokenizer


class EngineBusy(ValueError):
    """All slots are taken and the queue is full."""


class EngineDead(RuntimeError):
    """A fault that a fresh start did not cure."""


class Engine:
    """Slots for takes, and the queue before them."""

    def __init__(
        self,
        tts: CatTTS,
        tokenizer: AudioTokenizer,
        *,
        slots: int = 8,
        waiting: int = 32,
        weights: Weights = "float",
    ) -> None:
        if slots < 1 or waiting < 0:
            raise ValueError(f"slots={slots}, waiting={waiting}: give at least 1 slot and 0 places to wait")
        self.tts, self.tokenizer, self.slots, self.waiting = tts, tokenizer, slots, waiting
        self.weights: Weights = weights
        self.fault: Exception | None = None
        """Why it is dead, if it is."""
        self._queue: deque[Ticket] = deque()
        self._joining = 0  # takes that have left the queue, whose prompt is being read
        # Reentrant: a stream may be dropped, and then sweeps, wherever Python collects garbage.
        self._door, self._stepping = threading.RLock(), threading.Lock()
        self._start()

    @property
    def active(self) -> int:
        """Takes that have a slot."""
        return len(self._active)

    @property
    def tickets(self) -> list[Ticket]:
        """Of the takes that have a slot."""
        return list(self._active.values())

    @property
    def queued(self) -> int:
        """Takes that wait for a slot."""
        return len(self._queue)

    @property
    def busy(self) -> bool:
        """There is something to do."""
        return bool(self._active or self._queue)

    def check_room(self) -> None:
        """EngineBusy when there is no place left, EngineDead when there never will be."""
        if self.fault is not None:
            raise EngineDead(f"the engine stopped for good: {self.fault}") from self.fault
        if self.queued + self._joining + self.active >= self.waiting + self.slots:
            raise EngineBusy(f"{self.active} takes are being made, {self.queued} wait: try again later")

    def submit(self, job: Job) -> Ticket:
        """Queue a job, if there is room. Of any thread."""
        with self._door:
            self.check_room()
            ticket = Ticket(job)
            self._queue.append(ticket)
            return ticket

    def step(self) -> None:
        """Let go of what was cancelled, fill free slots, and make the next frame of every take.

        What goes wrong for all ends all that have a slot, with that error; those that wait are served then.
        """
        try:
            self.sweep()
            self._fill()
            if self._active:
                self._frame()
        except BaseException as error:
            self._recover(error)
            if not isinstance(error, Exception):
                raise

    def drive(self, ticket: Ticket) -> None:
        """Step, unless the ticket has ended; threads that do so take turns."""
        with self._stepping:
            if not ticket.ended:
                self.step()

    def sweep(self) -> None:
        """Let go of what was cancelled."""
        for slot in [slot for slot, ticket in self._active.items() if ticket.cancelled]:
            self._leave(slot, "cancelled")
        with self._door:
            cancelled = [ticket for ticket in self._queue if ticket.cancelled]
            for ticket in cancelled:
                self._queue.remove(ticket)
        for ticket in cancelled:
            ticket.end("cancelled")

    def let_go(self) -> None:
        """Sweep now, or leave it to the step that is being made."""
        if self._stepping.acquire(blocking=False):
            try:
                self.sweep()
            finally:
                self._stepping.release()

    def stop(self, error: Exception) -> None:
        """End everything with an error, for good."""
        with self._door:
            self.fault = error
            tickets = [*self._active.values(), *self._queue]
            self._active = {}
            self._queue.clear()
        for ticket in tickets:
            ticket.end(error)

    def _fill(self) -> None:
        while self._queue and self.active < self.slots:
            with self._door:
                ticket, self._joining = self._queue.popleft(), 1
            try:
                slot = self._decoder.join(ticket.job.continuation)
            except BaseException as error:
                self._joining = 0
                ticket.end(_shown(error))
                if not isinstance(error, Exception):
                    raise
                continue
            with self._door:
                self._active[slot], self._joining = ticket, 0
            if ticket.job.context is None:
                self._speech.restart(len(self._rows))
            else:
                self._speech.adopt(len(self._rows), ticket.job.context)
            self._rows.append(slot)

    def _frame(self) -> None:
        made = self._decoder.step()
        for slot, row in made.items():
            if int(row[0]) == self.tts.config.tokens.audio_end:
                self._leave(slot, "end")
        if self._rows:
            codes = [made[slot][1:] for slot in self._rows]
            for slot, row, audio in zip(tuple(self._rows), codes, self._decode(codes), strict=True):
                self._deliver(slot, row, audio)

    def _deliver(self, slot: int, codes: Int[Tensor, " k"], audio: Float[np.ndarray, " s"]) -> None:
        ticket = self._active[slot]
        ticket.add(codes, audio)
        job = ticket.job
        try:
            outcome = job.guard(codes, audio) if job.guard else None
        except Exception as error:
            outcome = error
        if outcome is None and len(ticket.audio) >= job.continuation.max_frames:
            outcome = "limit"
        if outcome is not None:
            self._leave(slot, outcome)

    def _leave(self, slot: int, outcome: StopReason | Exception) -> None:
        if slot in self._decoder.active:
            self._decoder.leave(slot)
        row, last = self._rows.index(slot), len(self._rows) - 1
        self._speech.move(last, row)  # the audio decoder works on the first rows
        self._rows[row] = self._rows[last]
        self._rows.pop()
        self._active.pop(slot).end(outcome)

    def _decode(self, codes: list[Int[Tensor, " k"]]) -> Float[np.ndarray, "b s"]:
        """The audio of one frame of every take, each from its own depth."""
        depths = torch.tensor([len(row) for row in codes])
        rows = pad_sequence(codes, batch_first=True)[:, None].to(self._device)
        audio = self.tokenizer.decode(rows, self._speech, depths if len(depths.unique()) > 1 else None)
        return audio.float().clamp(-1, 1).cpu().numpy()

    @property
    def _device(self) -> torch.device:
        return self.tts.text_embedding.weight.device

    def _recover(self, error: BaseException) -> None:
        """End all that have a slot and start afresh, or for good where that fails too."""
        failed = list(self._active.values())
        try:
            self._start()
        except Exception as fault:
            self.stop(fault)
        for ticket in failed:
            ticket.end(_shown(error))

    def _start(self) -> None:
        self._active: dict[int, Ticket] = {}
        self._decoder = FrameDecoder(self.tts, self.slots, self.weights)
        self._speech = self.tokenizer.decoder_cache(self.slots)
        self._rows: list[int] = []
        """Slots in the order of the rows of `_speech`."""


def _shown(error: BaseException) -> Exception:
    """What a reader is told: not to go down with the thread that was interrupted."""
    return error if isinstance(error, Exception) else RuntimeError(f"stopped by {error!r}")
