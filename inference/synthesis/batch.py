"""Many takes made together, by one engine."""

from collections.abc import Callable, Sequence

from inference.engine.engine import Engine
from inference.engine.request import Request
from inference.engine.result import Take, TakeStream
from inference.engine.stopping_rules import runaway_guard
from inference.synthesis.synthesizer import Synthesizer


def together(
    synthesizer: Synthesizer,
    engine: Engine,
    requests: Sequence[Request],
    *,
    guarded: bool = False,
    on_frame: Callable[[int], object] | None = None,
) -> list[Take]:
    """The takes of the requests, which must find room in the engine; `guarded` ends those that run away.

    `on_frame` is called with the number of frames of the longest so far. If it raises, all are let go.
    """
    jobs = [
        synthesizer.job(request, runaway_guard(request.text) if guarded else None) for request in requests
    ]
    streams: list[TakeStream] = []
    try:
        for request, job in zip(requests, jobs, strict=True):
            ticket = engine.submit(job)
            streams.append(
                TakeStream(
                    request,
                    ticket,
                    synthesizer.tokenizer.config,
                    advance=lambda _, ticket=ticket: engine.drive(ticket),
                    release=engine.let_go,
                )
            )
        longest = 0
        for stream in streams:
            for _ in stream:  # which drives the others on as well
                if on_frame is not None and stream.frames > longest:
                    longest = stream.frames
                    on_frame(longest)
        return [stream.take for stream in streams]
    finally:
        for stream in streams:
            stream.close()
