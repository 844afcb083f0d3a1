"""The result of a request, and the stream of its audio while it is synthesized."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from inference.engine.job import RequestHandle, StopReason
from inference.engine.options import check_whole
from inference.engine.request import Request
from tokenizer.config import TokenizerConfig


@dataclass(frozen=True, kw_only=True)
class SynthesisResult:
    """Synthesized speech with its codes, its seed, the reason why it ended, and what was done to get it."""

    audio: Float[np.ndarray, " s"]
    """Samples in [-1, 1]."""
    sample_rate: int
    codes: Int[Tensor, "t k"]
    depth: int
    bitrate: float
    """Bitrate of the codes, in bit/s."""
    seed: int
    stop_reason: StopReason
    request: Request | None = None
    """The request that this answers; None for a result that was joined from several."""
    attempts: int = 1
    """Attempts until this result, of all segments."""
    intelligibility: float | None = None
    """How well the model's recognizer finds the text in the codes, as the mean logarithm of a probability a
    symbol, 0 at best; of several segments the worst. None where it was not checked or cannot be."""
    acceptable: bool = True
    """False where all attempts failed, and this is the best of them."""
    segments: "tuple[SynthesisResult, ...]" = ()
    """The results that this was joined from, not trimmed; empty for a single one."""
    pauses: tuple[float, ...] = ()
    """Seconds of silence before the first segment and after each."""

    @property
    def seconds(self) -> float:
        """Duration of the audio in seconds."""
        return len(self.audio) / self.sample_rate

    @property
    def parts(self) -> "tuple[SynthesisResult, ...]":
        """The results of all requests: the segments, or this result itself."""
        return self.segments or (self,)


class RequestStream(Iterator[Float[np.ndarray, " s"]]):
    """The audio of a request as its frames are decided, float32 in [-1, 1]; at the end its `result`.

    Closing the stream early, leaving the `with` block or dropping the stream cancels the rest of the request.
    """

    def __init__(
        self,
        request: Request,
        handle: RequestHandle,
        config: TokenizerConfig,
        *,
        advance: Callable[[int], None],
        release: Callable[[], None],
        chunk_frames: int = 1,
    ) -> None:
        """Create a stream that reads a handle.

        Args:
            request: What is being synthesized.
            handle: The output of its job.
            config: Configuration of the audio tokenizer.
            advance: `advance(n)` returns when the handle holds n frames or has ended, or earlier.
            release: Called once, when the stream does not need the handle any more.
            chunk_frames: Frames that are returned at a time.

        Raises:
            ValueError: `chunk_frames` is no whole number from 1.
        """
        self.request, self.chunk_frames = request, check_whole("chunk_frames", chunk_frames, 1, 2**31)
        self._handle, self._config = handle, config
        self._advance, self._release = advance, release
        self._read, self._closed = 0, False

    @property
    def frames(self) -> int:
        """Number of frames that were returned so far."""
        return self._read

    @property
    def sample_rate(self) -> int:
        """Samples per second of the audio."""
        return self._config.sample_rate

    def __next__(self) -> Float[np.ndarray, " s"]:
        handle, stop = self._handle, self._read + self.chunk_frames
        while not self._closed and not handle.ended and len(handle.audio) < stop:
            self._advance(stop)
        frames = [] if self._closed else handle.audio[self._read : stop]
        if not frames:
            self.close()
            if handle.error is not None:
                raise handle.error
            raise StopIteration
        self._read += len(frames)
        handle.was_read(self._read)
        return np.concatenate(frames)

    def close(self) -> None:
        """Cancel the rest of the request; frames that were returned remain available as `result`."""
        if not self._closed:
            self._closed = True
            self._handle.cancel()
            self._release()

    @property
    def result(self) -> SynthesisResult:
        """The result with the frames that were returned, once the stream has ended or was closed.

        Raises:
            ValueError: the stream has not ended.
            Exception: the error that ended the request.
        """
        handle = self._handle
        if not self._closed and not (handle.ended and self._read == len(handle.audio)):
            raise ValueError("the result is not complete: read its stream to the end, or close it")
        if handle.error is not None:
            raise handle.error
        complete = handle.stop_reason is not None and self._read == len(handle.audio)
        depth = self.request.depth
        codes = torch.stack(handle.codes[: self._read]) if self._read else torch.zeros(0, depth).long()
        return SynthesisResult(
            audio=np.concatenate([np.zeros(0, np.float32), *handle.audio[: self._read]]),
            sample_rate=self._config.sample_rate,
            codes=codes,
            depth=depth,
            bitrate=self._config.bitrate(depth),
            seed=self.request.seed,
            stop_reason=handle.stop_reason if complete and handle.stop_reason else "cancelled",
            request=self.request,
        )

    def collect(self) -> SynthesisResult:
        """Read the stream to its end and return the result."""
        for _ in self:
            pass
        return self.result

    def __enter__(self) -> "RequestStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_closed"):  # missing where the constructor raised
            self.close()
