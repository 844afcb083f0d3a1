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
from cat_tts.generation.continuation import ActiveSequence
from cat_tts.generation.frame_decoder import FrameDecoder
from cat_tts.generation.int8_linear import Weights
from inference.device import thread_count, threads
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
        self._threads = thread_count(tts, tokenizer)
        self.fault: Exception | None = None
        """The error that stopped the engine for good."""
        self._queue: deque[RequestHandle] = deque()
        self._joining: RequestHandle | None = None  # has left the queue; its prompt is being processed
        # Reentrant: Python may collect a dropped stream anywhere, and that calls `reap_cancelled`.
        self._queue_lock, self._stepping = threading.RLock(), threading.Lock()
        self._start()

    @property
    def active(self) -> int:
        """Number of requests that have a slot."""
        return len(self._decoder.active)

    @property
    def handles(self) -> list[RequestHandle]:
        """Handles of the requests that have a slot."""
        return [sequence.owner for sequence in self._decoder.active]

    @property
    def queued(self) -> int:
        """Number of requests that wait for a slot."""
        return len(self._queue)

    @property
    def busy(self) -> bool:
        """Whether any request is running or waiting."""
        return bool(self.active or self._queue)

    def check_room(self) -> None:
        """Check that another request can be submitted.

        Raises:
            EngineBusy: all slots are in use and the queue is full.
            EngineDead: the engine has stopped for good.
        """
        if self.fault is not None:
            raise EngineDead(f"the engine stopped for good: {self.fault}") from self.fault
        with self._queue_lock:
            pending = {*self._queue, self._joining, *self.handles} - {None}
        if len(pending) >= self.waiting + self.slots:
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
            with threads(self._threads):
                self._fill()
                if self.active:
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
        for sequence in self._decoder.active:
            if sequence.owner.cancelled:
                self._leave(sequence, "cancelled")
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
            handles = [*self.handles, *self._queue]
            self._decoder.clear()
            self._queue.clear()
        for handle in handles:
            handle.end(error)

    def _fill(self) -> None:
        while self._queue and self._decoder.free:
            with self._queue_lock:
                self._joining = handle = self._queue.popleft()
            try:
                self._decoder.join(handle.job.continuation, handle)
            except BaseException as error:
                self._joining = None
                handle.end(_reportable(error))
                if not isinstance(error, Exception):
                    raise
                continue
            with self._queue_lock:
                self._joining = None
            if handle.job.context is None:
                self._speech.reset(self.active - 1)
            else:
                self._speech.load_state(self.active - 1, handle.job.context)

    def _step_frame(self) -> None:
        for sequence in reversed(self._decoder.step()):
            if sequence.stopped:
                self._leave(sequence, "end")
        if sequences := self._decoder.active:
            audio = self._decode([sequence.row[1:] for sequence in sequences])
            for sequence, frame in zip(sequences, audio, strict=True):
                self._deliver(sequence, frame)

    def _deliver(self, sequence: ActiveSequence[RequestHandle], audio: Float[np.ndarray, " s"]) -> None:
        codes, guard = sequence.row[1:], sequence.owner.job.guard
        sequence.owner.add(codes, audio)
        try:
            outcome = guard(codes, audio) if guard else None
        except Exception as error:
            outcome = error
        if outcome is None and sequence.ended:
            outcome = "limit"
        if outcome is not None:
            self._leave(sequence, outcome)

    def _leave(self, sequence: ActiveSequence[RequestHandle], outcome: StopReason | Exception) -> None:
        try:
            index = self._decoder.leave(sequence)
            self._speech.move(self.active, index)  # the last sequence has moved to where this one was
        finally:
            sequence.owner.end(outcome)

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
        failed = self.handles
        self._decoder.clear()
        try:
            self._start()
        except Exception as fault:
            self.stop(fault)
        for handle in failed:
            handle.end(_reportable(error))

    def _start(self) -> None:
        self._decoder = FrameDecoder[RequestHandle](self.tts, self.slots, self.weights)
        self._speech = self.tokenizer.decoder_cache(self.slots)
        """State of the audio decoder, for the sequences in `_decoder` in their order."""


def _reportable(error: BaseException) -> Exception:
    """Return an error for readers that does not interrupt their thread, as a KeyboardInterrupt would."""
    return error if isinstance(error, Exception) else RuntimeError(f"stopped by {error!r}")
