"""A text of any length while it is spoken: the one way from a plan to audio, whole or in a stream."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from inference.engine.engine import EngineBusy
from inference.engine.request import Request
from inference.engine.result import RequestStream, SynthesisResult
from inference.longform.join import join, overall_stop_reason, silence
from inference.longform.plan import SpeechPlan
from inference.longform.segment_cache import SegmentCache
from inference.longform.silence_trimming import SilenceTrimmer
from inference.synthesis.attempts import Attempts, GuardFactory, SynthesisFailed, watch_for_runaways
from inference.synthesis.runner import Runner


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of a synthesis."""

    segment: int
    """Index of the segment that is being synthesized, from 0."""
    segments: int
    attempt: int
    """Index of the attempt, from 0."""
    frames: int
    """Frames of the attempt, or of its longest candidate, so far; 0 at its beginning."""


class SynthesisStream(Iterator[Float[np.ndarray, " s"]]):
    """The audio of a text, segment by segment, float32 in [-1, 1]; at the end its `result`.

    with synthesizer.stream(text, voice) as stream:
        for audio in stream:
            play(audio)

    A segment is returned when an attempt at it was accepted. Live, the first segment is returned while it is
    synthesized, so that speech begins at once: what was played cannot be taken back, so where its speech runs
    away it is ended, and the next segment follows. One thread reads; any thread may call `close`, which frees
    the slot before the next frame.
    """

    def __init__(
        self,
        runner: Runner,
        plan: SpeechPlan,
        *,
        live: bool = False,
        chunk_frames: int = 1,
        cache: str | Path | None = None,
        guard: GuardFactory = watch_for_runaways,
        on_progress: Callable[[Progress], object] | None = None,
    ) -> None:
        """Prepare the stream; a live one submits its first segment.

        Args:
            runner: What synthesizes the segments.
            plan: The segments.
            live: Whether the first segment is returned while it is synthesized; all are where the policy
                allows a single attempt.
            chunk_frames: Frames that are returned at a time of what is synthesized meanwhile.
            cache: Folder in which segments are stored, and found when the same text is synthesized again.
            guard: Creates the stopping rule of each attempt.
            on_progress: Called at the beginning of every attempt and after its frames.

        Raises:
            EngineBusy: all slots are in use and the queue is full.
            ValueError: the cache is no folder.
        """
        self.runner, self.plan, self.live, self.chunk_frames = runner, plan, live, chunk_frames
        self.sample_rate = runner.models.sample_rate
        self.results: list[SynthesisResult] = []
        """Results of the segments that have ended; of a closed live one, the frames that were returned."""
        self.on_progress, self._guard = on_progress, guard
        self._attempts = Attempts(runner, plan.options.policy, guard, self._report)
        self._cache = None if cache is None else SegmentCache(cache, runner.models)
        self._complete = False
        self._stream = self._open(plan.requests[0], wait=False) if self._is_live(0) else None
        self._audio = self._generate()

    @property
    def segment(self) -> int:
        """Index of the segment that is being synthesized, from 0."""
        return min(len(self.results), len(self.plan.requests) - 1)

    @property
    def frames(self) -> int:
        """Number of frames of the segments that have ended, and of the live one so far."""
        ended = sum(len(result.codes) for result in self.results)
        return ended + (self._stream.frames if self._stream is not None else 0)

    @property
    def stop_reason(self) -> str:
        """The first reason of a segment other than "end"; "cancelled" where segments are missing."""
        return overall_stop_reason(self.results, len(self.plan.requests))

    @property
    def result(self) -> SynthesisResult:
        """The joined result, once the stream has ended or was closed, of what was returned.

        Raises:
            ValueError: the stream has not ended, or nothing was spoken.
        """
        if not self._complete and not self._attempts.closed:
            raise ValueError("the result is not complete: read its stream to the end, or close it")
        results = list(self.results)
        if self._stream is not None:
            results.append(self._attempts.assessed(self._stream.result))
        if not results:
            raise ValueError("the stream was closed before anything was spoken")
        return join(self.plan, results, self.runner.models.voices)

    def collect(self) -> SynthesisResult:
        """Read the stream to its end and return the result.

        Raises:
            SynthesisFailed: all attempts at a segment failed, and the policy is strict.
        """
        for _ in self:
            pass
        return self.result

    def close(self) -> None:
        """Cancel the rest of the text."""
        self._attempts.close()

    def __next__(self) -> Float[np.ndarray, " s"]:
        return next(self._audio)

    def __enter__(self) -> "SynthesisStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _generate(self) -> Generator[Float[np.ndarray, " s"], None, None]:
        lead, *pauses = self.plan.pauses
        yield from self._pause(lead)
        for index, pause in enumerate(pauses):
            if index and self._attempts.closed:
                return
            trimmer = None if self.plan.is_single_segment else SilenceTrimmer(self.sample_rate)
            try:
                for chunk in self._speak(index):
                    audio = chunk if trimmer is None else trimmer.feed(chunk)
                    if len(audio):
                        yield audio
            except EngineBusy:
                if not self._attempts.closed:  # else nobody waits for room any more
                    raise
                return
            if len(self.results) <= index or self.results[-1].stop_reason == "cancelled":
                return
            if trimmer is not None and len(rest := trimmer.finish()):
                yield rest
            yield from self._pause(pause)
        self._complete = True
        if self.plan.options.policy.strict and not all(result.acceptable for result in self.results):
            raise SynthesisFailed(self.result)

    def _speak(self, index: int) -> Iterator[Float[np.ndarray, " s"]]:
        """Yield the audio of a segment, and append its result."""
        if self._is_live(index):
            stream = self._stream = self._stream or self._open(self.plan.requests[index], wait=True)
            for audio in stream:
                yield audio
                self._report(0, stream.frames)
                stream.chunk_frames = self.chunk_frames
            self.results.append(self._attempts.assessed(stream.result))
            self._stream = None
            return
        if self._attempts.closed:
            return
        request, cached = self.plan.requests[index], None
        if self._cache is not None:
            cached = self._cache.find(request)
        if cached is None:
            (cached,) = self._attempts.run([request], wait=index > 0)
            if self._cache is not None and cached.stop_reason != "cancelled":
                self._cache.store(request, cached)
        if cached.stop_reason == "cancelled":  # nobody has heard any of it
            return
        self.results.append(cached)
        yield cached.audio

    def _is_live(self, index: int) -> bool:
        return self.live and (index == 0 or not self.plan.options.policy.checks)

    def _open(self, request: Request, *, wait: bool) -> RequestStream:
        guard = self._guard(request)
        return self._attempts.start(request, guard, wait=wait, chunk_frames=self.chunk_frames)

    def _pause(self, seconds: float) -> Iterator[Float[np.ndarray, " s"]]:
        for part in silence(seconds, self.sample_rate):
            if not self._attempts.closed:
                yield part

    def _report(self, attempt: int, frames: int) -> None:
        if self.on_progress is not None:
            self.on_progress(
                Progress(
                    segment=self.segment, segments=len(self.plan.requests), attempt=attempt, frames=frames
                )
            )
