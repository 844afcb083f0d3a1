"""Synthesis of many requests at a time by one engine."""

from collections.abc import Callable, Sequence

from inference.engine.engine import Engine
from inference.engine.request import Request
from inference.engine.result import SynthesisResult, SynthesisStream
from inference.engine.stopping_rules import runaway_guard
from inference.synthesis.synthesizer import Synthesizer


def synthesize_batch(
    synthesizer: Synthesizer,
    engine: Engine,
    requests: Sequence[Request],
    *,
    guarded: bool = False,
    on_frame: Callable[[int], object] | None = None,
) -> list[SynthesisResult]:
    """Synthesize several requests together.

    Args:
        synthesizer: The models of `engine`.
        engine: An engine with room for all requests.
        requests: What to synthesize.
        guarded: Whether to end runaway speech early, see `inference.engine.stopping_rules`.
        on_frame: Called with the number of frames of the longest request so far. If it raises, all are
            cancelled.

    Returns:
        One result for each request, in their order.

    Raises:
        EngineBusy: the engine has not enough room.
    """
    jobs = [
        synthesizer.job(request, runaway_guard(request.text) if guarded else None) for request in requests
    ]
    streams: list[SynthesisStream] = []
    try:
        for request, job in zip(requests, jobs, strict=True):
            handle = engine.submit(job)
            streams.append(
                SynthesisStream(
                    request,
                    handle,
                    synthesizer.tokenizer.config,
                    advance=lambda _, handle=handle: engine.step_until(handle),
                    release=engine.release,
                )
            )
        longest = 0
        for stream in streams:
            for _ in stream:  # every step advances the other requests too
                if on_frame is not None and stream.frames > longest:
                    longest = stream.frames
                    on_frame(longest)
        return [stream.result for stream in streams]
    finally:
        for stream in streams:
            stream.close()
