"""A text of any length spoken by a service, and heard while it is made."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from inference.engine.engine import EngineBusy
from inference.engine.job import Guard, StopReason
from inference.engine.request import Request
from inference.engine.result import Take, TakeStream
from inference.engine.stopping_rules import runaway_guard
from inference.longform.plan import Plan
from inference.longform.silence_trimming import Edges, edged
from inference.synthesis.service import Service
from tokenizer import AudioTokenizer

QUEUE_SECONDS, LOOK_AGAIN_SECONDS = 60.0, 0.05
"""For which a piece behind the first waits for a place in a full queue, and how often it looks."""
SILENT_FRAMES = 25
"""Of silence that are encoded; a longer one repeats the last of them."""


def watch_for_runaways(request: Request) -> Guard:
    return runaway_guard(request.text)


class ReadingStream(Iterator[Float[np.ndarray, " s"]]):
    """The audio of a plan while it is made, piece by piece, the silence between them included.

    Of a single take it is that take. What was heard cannot be taken back, so a piece that runs away is ended
    by its guard, and the next one follows. One thread reads; `close` may be called by any, and frees the slot
    before the next frame.
    """

    def __init__(
        self,
        service: Service,
        plan: Plan,
        *,
        guard: Callable[[Request], Guard] = watch_for_runaways,
        chunk_frames: int = 1,
    ) -> None:
        """EngineBusy where there is no place for the first piece; later ones wait for theirs."""
        self.service, self.plan, self.chunk_frames = service, plan, chunk_frames
        self.sample_rate = service.synthesizer.sample_rate
        self.takes: list[Take] = []
        """Of the pieces that are over, as far as they were heard."""
        self._guard, self._closed = guard, False
        self._stream, self._opened = self._open(plan.requests[0]), 0
        self._audio = self._spoken()

    @property
    def piece(self) -> int:
        """The one that is being spoken, from 0."""
        return min(len(self.takes), len(self.plan.requests) - 1)

    @property
    def frames(self) -> int:
        """How many were handed out."""
        over = sum(len(take.codes) for take in self.takes)
        return over + self._stream.frames if len(self.takes) == self._opened else over

    @property
    def stop_reason(self) -> StopReason:
        """Why it ended: the first reason but "end" of its pieces, "cancelled" where some are missing."""
        return ending(self.takes, self.plan)

    def __next__(self) -> Float[np.ndarray, " s"]:
        return next(self._audio)

    def close(self) -> None:
        """Need no more of it."""
        self._closed = True
        self._stream.close()

    def __enter__(self) -> "ReadingStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spoken(self) -> Generator[Float[np.ndarray, " s"], None, None]:
        yield from self._pause(self.plan.script.lead_seconds)
        for index, piece in enumerate(self.plan.script.pieces):
            if index and self._closed:
                return
            if index:
                self._stream, self._opened = self._open_later(self.plan.requests[index]), index
                if self._closed:  # meanwhile, when the stream was another
                    self._stream.close()
            edges = None if self.plan.alone else Edges(self.sample_rate)
            for audio in self._chunks(self._stream):
                heard = audio if edges is None else edges.feed(audio)
                if len(heard):
                    yield heard
            self.takes.append(self._stream.take)
            if self.takes[-1].stop_reason == "cancelled":
                return
            if edges is not None and len(rest := edges.finish()):
                yield rest
            yield from self._pause(piece.pause_seconds)

    def _pause(self, seconds: float) -> Iterator[Float[np.ndarray, " s"]]:
        for part in _silence(seconds, self.sample_rate):
            if not self._closed:
                yield part

    def _chunks(self, stream: TakeStream) -> Iterator[Float[np.ndarray, " s"]]:
        stream.chunk_frames = self.chunk_frames
        for audio in stream:
            yield audio
            stream.chunk_frames = self.chunk_frames

    def _open(self, request: Request) -> TakeStream:
        return self.service.stream(request, guard=self._guard(request), chunk_frames=self.chunk_frames)

    def _open_later(self, request: Request) -> TakeStream:
        give_up = time.monotonic() + QUEUE_SECONDS
        while True:
            try:
                return self._open(request)
            except EngineBusy:
                if time.monotonic() > give_up:
                    raise
                time.sleep(LOOK_AGAIN_SECONDS)


def joined(plan: Plan, takes: Sequence[Take], tokenizer: AudioTokenizer) -> Take:
    """The takes of a plan, or of its first pieces, as one: its audio is what was heard.

    Among its codes a pause is told by those of silence, whole frames of it.
    """
    if plan.alone:
        return takes[0]
    first, lead = takes[0], plan.script.lead_seconds
    pauses = [piece.pause_seconds for piece in plan.script.pieces[: len(takes)]]
    audio, codes = _silence(lead, first.sample_rate), [_silent_codes(tokenizer, lead, first.depth)]
    for take, pause in zip(takes, pauses, strict=True):
        audio += [edged(take.audio, take.sample_rate), *_silence(pause, take.sample_rate)]
        codes += [take.codes, _silent_codes(tokenizer, pause, take.depth)]
    return Take(
        audio=np.concatenate(audio),
        sample_rate=first.sample_rate,
        codes=torch.cat(codes),
        depth=first.depth,
        bitrate=first.bitrate,
        seed=first.seed,
        stop_reason=ending(takes, plan),
    )


def ending(takes: Sequence[Take], plan: Plan) -> StopReason:
    """The first reason but "end" of the takes; "cancelled" where there are fewer than were planned."""
    if len(takes) < len(plan.requests):
        return "cancelled"
    reasons: list[StopReason] = [take.stop_reason for take in takes if take.stop_reason != "end"]
    return reasons[0] if reasons else "end"


def _silence(seconds: float, sample_rate: int) -> list[Float[np.ndarray, " s"]]:
    """Nobody needs more than a second of it at once."""
    count = round(seconds * sample_rate)
    return [np.zeros(min(sample_rate, count - start), np.float32) for start in range(0, count, sample_rate)]


def _silent_codes(tokenizer: AudioTokenizer, seconds: float, depth: int) -> Int[Tensor, "t k"]:
    frames = round(seconds * tokenizer.config.frame_rate)
    if not frames:
        return torch.zeros(0, depth, dtype=torch.long)
    device = next(tokenizer.parameters()).device
    quiet = torch.zeros(1, min(frames, SILENT_FRAMES) * tokenizer.config.frame_size, device=device)
    codes = tokenizer.encode(quiet)[0, :, :depth].cpu()
    return torch.cat([codes, codes[-1:].expand(frames - len(codes), -1)])
