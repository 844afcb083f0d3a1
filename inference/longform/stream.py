"""Streaming of a text of any length, synthesized by a service while it is played."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from inference.engine.engine import EngineBusy
from inference.engine.job import Guard, StopReason
from inference.engine.request import Request
from inference.engine.result import SynthesisResult, SynthesisStream
from inference.engine.stopping_rules import runaway_guard
from inference.longform.plan import LongFormPlan
from inference.longform.silence_trimming import SilenceTrimmer, trim_and_fade
from inference.synthesis.service import Service
from tokenizer import AudioTokenizer

MAX_QUEUE_SECONDS, POLL_INTERVAL = 60.0, 0.05
"""Seconds for which a segment after the first waits for a place in a full queue, and between its attempts."""
MAX_SILENT_FRAMES = 25
"""Frames of silence that are encoded; a longer pause repeats the last of them."""


def watch_for_runaways(request: Request) -> Guard:
    """Create the default guard of a request, `runaway_guard`."""
    return runaway_guard(request.text)


class LongFormStream(Iterator[Float[np.ndarray, " s"]]):
    """The audio of a plan while it is synthesized: segment by segment, with the pauses between them.

    For a single segment it is the audio of its request. What was played cannot be taken back, so a segment
    with runaway speech is ended by its guard, and the next one follows. One thread reads; any thread may call
    `close`, which frees the slot before the next frame.
    """

    def __init__(
        self,
        service: Service,
        plan: LongFormPlan,
        *,
        guard: Callable[[Request], Guard] = watch_for_runaways,
        chunk_frames: int = 1,
    ) -> None:
        """Submit the first segment; later ones wait for room in the queue.

        Args:
            service: What synthesizes the segments.
            plan: The segments.
            guard: Creates the stopping rule of each request.
            chunk_frames: Frames that are returned at a time.

        Raises:
            EngineBusy: all slots are in use and the queue is full.
        """
        self.service, self.plan, self.chunk_frames = service, plan, chunk_frames
        self.sample_rate = service.synthesizer.sample_rate
        self.results: list[SynthesisResult] = []
        """Results of the segments that have ended, with the frames that were returned."""
        self._guard, self._closed = guard, False
        self._stream, self._opened = self._open(plan.requests[0]), 0
        self._audio = self._generate()

    @property
    def segment(self) -> int:
        """Index of the segment that is being synthesized, from 0."""
        return min(len(self.results), len(self.plan.requests) - 1)

    @property
    def frames(self) -> int:
        """Number of frames that were returned so far."""
        ended = sum(len(result.codes) for result in self.results)
        return ended + self._stream.frames if len(self.results) == self._opened else ended

    @property
    def stop_reason(self) -> StopReason:
        """The first reason of a segment other than "end"; "cancelled" where segments are missing."""
        return overall_stop_reason(self.results, self.plan)

    def __next__(self) -> Float[np.ndarray, " s"]:
        return next(self._audio)

    def close(self) -> None:
        """Cancel the rest of the plan."""
        self._closed = True
        self._stream.close()

    def __enter__(self) -> "LongFormStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _generate(self) -> Generator[Float[np.ndarray, " s"], None, None]:
        yield from self._pause(self.plan.segmented_text.lead_seconds)
        for index, segment in enumerate(self.plan.segmented_text.segments):
            if index and self._closed:
                return
            if index:
                self._stream, self._opened = self._open_later(self.plan.requests[index]), index
                if self._closed:  # while the previous stream was the current one
                    self._stream.close()
            trimmer = None if self.plan.is_single_segment else SilenceTrimmer(self.sample_rate)
            for chunk in self._chunks(self._stream):
                audio = chunk if trimmer is None else trimmer.feed(chunk)
                if len(audio):
                    yield audio
            self.results.append(self._stream.result)
            if self.results[-1].stop_reason == "cancelled":
                return
            if trimmer is not None and len(rest := trimmer.finish()):
                yield rest
            yield from self._pause(segment.pause_seconds)

    def _pause(self, seconds: float) -> Iterator[Float[np.ndarray, " s"]]:
        for part in _silence(seconds, self.sample_rate):
            if not self._closed:
                yield part

    def _chunks(self, stream: SynthesisStream) -> Iterator[Float[np.ndarray, " s"]]:
        stream.chunk_frames = self.chunk_frames
        for audio in stream:
            yield audio
            stream.chunk_frames = self.chunk_frames

    def _open(self, request: Request) -> SynthesisStream:
        return self.service.stream(request, guard=self._guard(request), chunk_frames=self.chunk_frames)

    def _open_later(self, request: Request) -> SynthesisStream:
        deadline = time.monotonic() + MAX_QUEUE_SECONDS
        while True:
            try:
                return self._open(request)
            except EngineBusy:
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_INTERVAL)


def join_results(
    plan: LongFormPlan, results: Sequence[SynthesisResult], tokenizer: AudioTokenizer
) -> SynthesisResult:
    """Join the results of a plan, or of its first segments.

    Args:
        plan: The segments.
        results: At least one result; the first belongs to the first segment.
        tokenizer: The audio tokenizer of the codes.

    Returns:
        One result with the audio of `LongFormStream`. Among its codes, a pause is represented by whole frames
        of silence.
    """
    if plan.is_single_segment:
        return results[0]
    first, lead = results[0], plan.segmented_text.lead_seconds
    pauses = [segment.pause_seconds for segment in plan.segmented_text.segments[: len(results)]]
    audio, codes = _silence(lead, first.sample_rate), [_silent_codes(tokenizer, lead, first.depth)]
    for result, pause in zip(results, pauses, strict=True):
        audio += [trim_and_fade(result.audio, result.sample_rate), *_silence(pause, result.sample_rate)]
        codes += [result.codes, _silent_codes(tokenizer, pause, result.depth)]
    return SynthesisResult(
        audio=np.concatenate(audio),
        sample_rate=first.sample_rate,
        codes=torch.cat(codes),
        depth=first.depth,
        bitrate=first.bitrate,
        seed=first.seed,
        stop_reason=overall_stop_reason(results, plan),
    )


def overall_stop_reason(results: Sequence[SynthesisResult], plan: LongFormPlan) -> StopReason:
    """Return the first stop reason other than "end"; "cancelled" where results of the plan are missing."""
    if len(results) < len(plan.requests):
        return "cancelled"
    reasons: list[StopReason] = [result.stop_reason for result in results if result.stop_reason != "end"]
    return reasons[0] if reasons else "end"


def _silence(seconds: float, sample_rate: int) -> list[Float[np.ndarray, " s"]]:
    """Return silence in parts of up to a second."""
    count = round(seconds * sample_rate)
    return [np.zeros(min(sample_rate, count - start), np.float32) for start in range(0, count, sample_rate)]


def _silent_codes(tokenizer: AudioTokenizer, seconds: float, depth: int) -> Int[Tensor, "t k"]:
    frames = round(seconds * tokenizer.config.frame_rate)
    if not frames:
        return torch.zeros(0, depth, dtype=torch.long)
    device = next(tokenizer.parameters()).device
    silence = torch.zeros(1, min(frames, MAX_SILENT_FRAMES) * tokenizer.config.frame_size, device=device)
    codes = tokenizer.encode(silence)[0, :, :depth].cpu()
    return torch.cat([codes, codes[-1:].expand(frames - len(codes), -1)])
