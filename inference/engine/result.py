"""What comes of a request: a take, and before that the stream of its audio."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from inference.engine.job import StopReason, Ticket
from inference.engine.request import Request
from tokenizer.config import TokenizerConfig


@dataclass(frozen=True, kw_only=True)
class Take:
    """One synthesis."""

    audio: Float[np.ndarray, " s"]
    sample_rate: int
    codes: Int[Tensor, "t k"]
    depth: int
    bitrate: float
    """Of the codes, in bit/s."""
    seed: int
    stop_reason: StopReason
    request: Request | None = None
    """What it answers; None for what was put together of several takes."""

    @property
    def seconds(self) -> float:
        return len(self.audio) / self.sample_rate


class TakeStream(Iterator[Float[np.ndarray, " s"]]):
    """The audio of a take, float32 in [-1, 1], as its frames are decided; `take` when it is over.

    with synthesizer.stream(text, voice) as stream:
        for audio in stream:
            play(audio)

    Closing it early, leaving the `with` block or dropping the stream cancels what is left of the take.
    """

    def __init__(
        self,
        request: Request,
        ticket: Ticket,
        config: TokenizerConfig,
        *,
        advance: Callable[[int], None],
        release: Callable[[], None],
        chunk_frames: int = 1,
    ) -> None:
        """`advance(n)` returns when the ticket holds n frames or has ended, or earlier; `release` is called
        once, when the stream needs no more of the ticket."""
        if chunk_frames < 1:
            raise ValueError(f"chunk_frames={chunk_frames}: give how many frames to hand out at once, from 1")
        self.request, self.chunk_frames = request, chunk_frames
        self._ticket, self._config = ticket, config
        self._advance, self._release = advance, release
        self._read, self._closed = 0, False

    @property
    def frames(self) -> int:
        """How many were handed out."""
        return self._read

    @property
    def sample_rate(self) -> int:
        return self._config.sample_rate

    def __next__(self) -> Float[np.ndarray, " s"]:
        ticket, stop = self._ticket, self._read + self.chunk_frames
        while not self._closed and not ticket.ended and len(ticket.audio) < stop:
            self._advance(stop)
        frames = [] if self._closed else ticket.audio[self._read : stop]
        if not frames:
            self.close()
            if ticket.error is not None:
                raise ticket.error
            raise StopIteration
        self._read += len(frames)
        ticket.was_read(self._read)
        return np.concatenate(frames)

    def close(self) -> None:
        """Need no more of it. What was handed out stays, as `take`."""
        if not self._closed:
            self._closed = True
            self._ticket.cancel()
            self._release()

    @property
    def take(self) -> Take:
        """The take, of the frames that were handed out; when the stream is over or closed."""
        ticket = self._ticket
        if not self._closed and not (ticket.ended and self._read == len(ticket.audio)):
            raise ValueError("the take is not over: read its stream to the end, or close it")
        if ticket.error is not None:
            raise ticket.error
        whole = ticket.stop_reason is not None and self._read == len(ticket.audio)
        depth = self.request.depth
        codes = torch.stack(ticket.codes[: self._read]) if self._read else torch.zeros(0, depth).long()
        return Take(
            audio=np.concatenate([np.zeros(0, np.float32), *ticket.audio[: self._read]]),
            sample_rate=self._config.sample_rate,
            codes=codes,
            depth=depth,
            bitrate=self._config.bitrate(depth),
            seed=self.request.seed,
            stop_reason=ticket.stop_reason if whole and ticket.stop_reason else "cancelled",
            request=self.request,
        )

    def collect(self) -> Take:
        """Read all that is left."""
        for _ in self:
            pass
        return self.take

    def __enter__(self) -> "TakeStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_closed"):  # not where the constructor refused
            self.close()
