"""Continuous batching: requests join and leave between frames, each with its own depth, seed and length.

    engine = Engine(tts, tokenizer, slots=8)
    handles = [engine.submit(job) for job in jobs]
    while engine.busy:
        engine.step()  # one frame of every request that has a slot: codes, then audio

The output of a request does not depend on its neighbours in the batch, and an error in one job ends only its
own handle. `step` is for a single thread, such as that of `inference.synthesis.service`; with `step_until`,
several readers of handles share the work in turns.
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
from inference.engine.job import Job, RequestHandle, StopReason
from tokenizer import AudioTokenizer


class EngineBusy(ValueError):
    """All slots are in use and the queue is full."""


class EngineDead(RuntimeError):
    """The engine failed, and restarting it failed too."""


class Engine:
    """A batch of slots that synthesize requests, and the queue in front of them."""

    def __init__(
        self,
        tts: CatTTS,
        tokenizer: AudioTokenizer,
        *,
        slots: int = 8,
        waiting: int = 32,
        weights: Weights = "float",
    ) -> None:
        """Create an engine with free slots.

        Args:
            tts: The model that predicts codes.
            tokenizer: The audio tokenizer that decodes them.
            slots: Size of the batch: requests that run at the same time.
            waiting: Requests that may wait for a slot.
            weights: "int8" computes frames with weights of 8 bits, on a CPU.

        Raises:
            ValueError: fewer than 1 slot or 0 waiting requests.
        """
        if slots < 1 or waiting < 0:
            raise ValueError(f"slots={slots}, waiting={waiting}: give at least 1 slot and 0 places to wait")
        self.tts, self.tokenizer, self.slots, self.waiting = tts, tokenizer, slots, waiting
        self.weights: Weights = weights
        self.fault: Exception | None = None
        """The error that stopped the engine for good."""
        self._queue: deque[RequestHandle] = deque()
        self._joining = 0  # requests that have left the queue, whose prompt is being processed
        # Reentrant: Python may collect a dropped stream anywhere, and that calls `reap_cancelled`.
        self._queue_lock, self._stepping = threading.RLock(), threading.Lock()
        self._start()

    @property
    def active(self) -> int:
        """Number of requests that have a slot."""
        return len(self._active)

    @property
    def handles(self) -> list[RequestHandle]:
        """Handles of the requests that have a slot."""
        return list(self._active.values())

    @property
    def queued(self) -> int:
        """Number of requests that wait for a slot."""
        return len(self._queue)

    @property
    def busy(self) -> bool:
        """Whether any request is running or waiting."""
        return bool(self._active or self._queue)

    def check_room(self) -> None:
        """Check that another request can be submitted.

        Raises:
            EngineBusy: all slots are in use and the queue is full.
            EngineDead: the engine has stopped for good.
        """
        if self.fault is not None:
            raise EngineDead(f"the engine stopped for good: {self.fault}") from self.fault
        if self.queued + self._joining + self.active >= self.waiting + self.slots:
            raise EngineBusy(f"{self.active} requests are running, {self.queued} wait: try again later")

    def submit(self, job: Job) -> RequestHandle:
        """Queue a job; any thread may call this.

        Args:
            job: What to synthesize.

        Returns:
            The handle that will hold its output.

        Raises:
            EngineBusy: all slots are in use and the queue is full.
            EngineDead: the engine has stopped for good.
        """
        with self._queue_lock:
            self.check_room()
            handle = RequestHandle(job)
            self._queue.append(handle)
            return handle

    def step(self) -> None:
        """Drop cancelled requests, fill free slots, and compute the next frame of every request.

        An error that concerns the whole batch ends all requests that have a slot with that error; those that
        wait are served afterwards.
        """
        try:
            self.reap_cancelled()
            self._fill()
            if self._active:
                self._step_frame()
        except BaseException as error:
            self._recover(error)
            if not isinstance(error, Exception):
                raise

    def step_until(self, handle: RequestHandle) -> None:
        """Compute one step, unless the handle has ended; threads that call this take turns."""
        with self._stepping:
            if not handle.ended:
                self.step()

    def reap_cancelled(self) -> None:
        """End the requests that were cancelled and free their slots."""
        for slot in [slot for slot, handle in self._active.items() if handle.cancelled]:
            self._leave(slot, "cancelled")
        with self._queue_lock:
            cancelled = [handle for handle in self._queue if handle.cancelled]
            for handle in cancelled:
                self._queue.remove(handle)
        for handle in cancelled:
            handle.end("cancelled")

    def release(self) -> None:
        """Reap cancelled requests now, or leave it to the step that is running."""
        if self._stepping.acquire(blocking=False):
            try:
                self.reap_cancelled()
            finally:
                self._stepping.release()

    def stop(self, error: Exception) -> None:
        """End all requests with an error and stop for good."""
        with self._queue_lock:
            self.fault = error
            handles = [*self._active.values(), *self._queue]
            self._active = {}
            self._queue.clear()
        for handle in handles:
            handle.end(error)

    def _fill(self) -> None:
        while self._queue and self.active < self.slots:
            with self._queue_lock:
                handle, self._joining = self._queue.popleft(), 1
            try:
                slot = self._decoder.join(handle.job.continuation)
            except BaseException as error:
                self._joining = 0
                handle.end(_reportable(error))
                if not isinstance(error, Exception):
                    raise
                continue
            with self._queue_lock:
                self._active[slot], self._joining = handle, 0
            if handle.job.context is None:
                self._speech.reset(len(self._speech_slots))
            else:
                self._speech.load_state(len(self._speech_slots), handle.job.context)
            self._speech_slots.append(slot)

    def _step_frame(self) -> None:
        rows = self._decoder.step()
        for slot, row in rows.items():
            if int(row[0]) == self.tts.config.tokens.audio_end:
                self._leave(slot, "end")
        if self._speech_slots:
            codes = [rows[slot][1:] for slot in self._speech_slots]
            decoded = self._decode(codes)
            for slot, frame, audio in zip(tuple(self._speech_slots), codes, decoded, strict=True):
                self._deliver(slot, frame, audio)

    def _deliver(self, slot: int, codes: Int[Tensor, " k"], audio: Float[np.ndarray, " s"]) -> None:
        handle = self._active[slot]
        handle.add(codes, audio)
        job = handle.job
        try:
            outcome = job.guard(codes, audio) if job.guard else None
        except Exception as error:
            outcome = error
        if outcome is None and len(handle.audio) >= job.continuation.max_frames:
            outcome = "limit"
        if outcome is not None:
            self._leave(slot, outcome)

    def _leave(self, slot: int, outcome: StopReason | Exception) -> None:
        if slot in self._decoder.active:
            self._decoder.leave(slot)
        index, last = self._speech_slots.index(slot), len(self._speech_slots) - 1
        self._speech.move(last, index)  # the audio decoder works on the first entries of its cache
        self._speech_slots[index] = self._speech_slots[last]
        self._speech_slots.pop()
        self._active.pop(slot).end(outcome)

    def _decode(self, codes: list[Int[Tensor, " k"]]) -> Float[np.ndarray, "b s"]:
        """Decode one frame of every request, each at its own depth."""
        depths = torch.tensor([len(frame) for frame in codes])
        padded = pad_sequence(codes, batch_first=True)[:, None].to(self._device)
        audio = self.tokenizer.decode(padded, self._speech, depths if len(depths.unique()) > 1 else None)
        return audio.float().clamp(-1, 1).cpu().numpy()

    @property
    def _device(self) -> torch.device:
        return self.tts.text_embedding.weight.device

    def _recover(self, error: BaseException) -> None:
        """End all requests that have a slot and start afresh; stop for good where that fails too."""
        failed = list(self._active.values())
        try:
            self._start()
        except Exception as fault:
            self.stop(fault)
        for handle in failed:
            handle.end(_reportable(error))

    def _start(self) -> None:
        self._active: dict[int, RequestHandle] = {}
        self._decoder = FrameDecoder(self.tts, self.slots, self.weights)
        self._speech = self.tokenizer.decoder_cache(self.slots)
        self._speech_slots: list[int] = []
        """Slots in the order of the batch of `_speech`."""


def _reportable(error: BaseException) -> Exception:
    """Return an error for readers that does not interrupt their thread, as a KeyboardInterrupt would."""
    return error if isinstance(error, Exception) else RuntimeError(f"stopped by {error!r}")
