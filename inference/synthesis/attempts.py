"""Attempts at requests until the results are acceptable: the one place where this is decided.

An attempt that runs away, does not end, or does not say the text is repeated with another seed, as often as
the `RetryPolicy` of the request allows; when all fail, the best of them is chosen. An attempt may itself be
the best of several cheap candidates at a low depth, which is then extended to the depth of the request.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from inference.device import thread_count, threads
from inference.engine.engine import EngineBusy
from inference.engine.job import Guard
from inference.engine.options import RetryPolicy
from inference.engine.request import Request
from inference.engine.result import RequestStream, SynthesisResult
from inference.engine.seeds import derived_seed
from inference.engine.stopping_rules import runaway_guard
from inference.synthesis.quality import intelligibility, is_acceptable, score
from inference.synthesis.runner import Runner

MAX_QUEUE_SECONDS, POLL_INTERVAL = 60.0, 0.05
"""Seconds for which a request after the first waits for a place in a full queue, and between its attempts."""

GuardFactory = Callable[[Request], Guard | None]
"""Creates the stopping rule of a request."""


class SynthesisFailed(ValueError):
    """All attempts at a text failed, under a strict policy; `result` is the best of them."""

    def __init__(self, result: SynthesisResult) -> None:
        """Describe the failed result."""
        super().__init__(
            f"no attempt of {result.attempts} succeeded (stopped: {result.stop_reason}): "
            "try another seed, another prompt, or a shorter text"
        )
        self.result = result


def watch_for_runaways(request: Request) -> Guard | None:
    """Create the stopping rule that the policy of a request asks for."""
    return runaway_guard(request.text) if request.options.policy.stop_runaways else None


class Attempts:
    """Runs requests together until their results are acceptable; another thread may close it."""

    def __init__(
        self,
        runner: Runner,
        policy: RetryPolicy,
        guard: GuardFactory = watch_for_runaways,
        on_frame: Callable[[int, int], object] | None = None,
    ) -> None:
        """Prepare attempts.

        Args:
            runner: Synthesizes the requests.
            policy: How many attempts there are.
            guard: Creates the stopping rule of every attempt.
            on_frame: Called with the number of the attempt, from 0, and the number of frames of its longest
                result so far; with 0 frames when it begins. If it raises, all are cancelled.
        """
        self.runner, self.policy, self.guard, self.on_frame = runner, policy, guard, on_frame
        self.closed = False
        self._wait = True
        self._open: list[RequestStream] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Cancel what is running; `run` then returns cancelled results."""
        with self._lock:
            self.closed = True
            streams = list(self._open)
        for stream in streams:
            stream.close()

    def run(self, requests: Sequence[Request], *, wait: bool = True) -> list[SynthesisResult]:
        """Synthesize requests together.

        Args:
            requests: What to synthesize; the seeds of later attempts are derived from theirs.
            wait: Whether the first attempt waits for room in a full queue, as later ones do.

        Returns:
            A result for each request, in their order; the output of one does not depend on the others.

        Raises:
            EngineBusy: the queue is full.
        """
        self._wait = wait
        tried, cancelled = list[list[SynthesisResult]]([] for _ in requests), False
        pending = list(range(len(requests)))
        for attempt in range(1 + self.policy.retries):
            seeds = [derived_seed(requests[i].seed, attempt) for i in pending]
            batch = [requests[i].changed(seed=seed) for i, seed in zip(pending, seeds, strict=True)]
            for i, result in zip(pending, self._attempt(batch, attempt), strict=True):
                tried[i].append(result)
            pending = [i for i in pending if not tried[i][-1].acceptable]
            self._wait = True
            cancelled = self.closed or any(results[-1].stop_reason == "cancelled" for results in tried)
            if cancelled or not pending:
                break
        failed = [] if cancelled else pending
        return [
            replace(max(results, key=score) if i in failed else results[-1], attempts=len(results))
            for i, results in enumerate(tried)
        ]

    def assessed(self, result: SynthesisResult) -> SynthesisResult:
        """Return a single result with its intelligibility, and whether it is acceptable."""
        asr_model = self.runner.models.asr_model
        with threads(None if asr_model is None else thread_count(asr_model)):
            measured = replace(result, intelligibility=intelligibility(asr_model, result))
        return replace(measured, acceptable=is_acceptable(measured))

    def _attempt(self, requests: Sequence[Request], attempt: int) -> list[SynthesisResult]:
        count = self.policy.candidates
        if count == 1:
            return [self.assessed(result) for result in self._collect(requests, attempt, self.guard)]
        depth = self.policy.candidate_depth
        candidates = [
            request.changed(depth=min(depth, request.depth), seed=derived_seed(request.seed, n))
            for request in requests
            for n in range(count)
        ]
        results = [self.assessed(result) for result in self._collect(candidates, attempt, self.guard)]
        groups = [results[start : start + count] for start in range(0, len(results), count)]
        best = [max(group, key=score) for group in groups]
        shallow = [
            i for i, result in enumerate(best) if len(result.codes) and result.depth < requests[i].depth
        ]
        extensions = [self.runner.models.extension(best[i], requests[i].depth) for i in shallow]
        for i, result in zip(shallow, self._collect(extensions, attempt, lambda _: None), strict=True):
            whole = len(result.codes) == len(best[i].codes)
            best[i] = self.assessed(
                replace(result, stop_reason=best[i].stop_reason if whole else result.stop_reason)
            )
        return best

    def _collect(
        self, requests: Sequence[Request], attempt: int, guard: GuardFactory
    ) -> list[SynthesisResult]:
        """Read the streams of requests in turns, so that none of them waits long for its reader."""
        longest = 0
        self._report(attempt, longest)
        streams: list[RequestStream] = []
        try:
            for request in requests:
                streams.append(self.start(request, guard(request), wait=self._wait))
            reading = list(streams)
            while reading:
                reading = [stream for stream in reading if next(stream, None) is not None]
                frames = max(stream.frames for stream in streams)
                if frames > longest:
                    longest = frames
                    self._report(attempt, longest)
            return [stream.result for stream in streams]
        finally:
            for stream in streams:
                stream.close()
            with self._lock:
                self._open = [stream for stream in self._open if stream not in streams]

    def start(
        self, request: Request, guard: Guard | None, *, wait: bool = True, chunk_frames: int = 1
    ) -> RequestStream:
        """Start to synthesize a request; `close` closes its stream.

        Args:
            request: What to synthesize.
            guard: Its stopping rule.
            wait: Whether to wait for room in a full queue.
            chunk_frames: Frames that the stream returns at a time.

        Returns:
            The stream.

        Raises:
            EngineBusy: the queue is full.
        """
        deadline = time.monotonic() + (MAX_QUEUE_SECONDS if wait else 0)
        while True:
            try:
                stream = self.runner.stream(request, guard=guard, chunk_frames=chunk_frames)
                break
            except EngineBusy:
                if self.closed or time.monotonic() >= deadline:
                    raise
                time.sleep(POLL_INTERVAL)
        with self._lock:
            self._open.append(stream)
            if self.closed:
                stream.close()
        return stream

    def _report(self, attempt: int, frames: int) -> None:
        if self.on_frame is not None:
            self.on_frame(attempt, frames)
