"""Many requests answered together, each by one take or by the best of several drafts."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from inference import Synthesizer, Take
from inference.drafts import DRAFT_DEPTH, derived_seed, score
from inference.engine import Engine
from inference.guard import runaway_guard
from inference.request import Request
from inference.take import TakeStream


def speak(synthesizer: Synthesizer, requests: Sequence[Request], slots: int, drafts: int) -> list[Take]:
    """As `inference.drafts.best_of` does for one: what `cat-tts clone --best-of` gives."""
    if drafts == 1:
        return _together(synthesizer, requests, slots)
    asked = [
        replace(request, depth=min(DRAFT_DEPTH, request.depth), seed=derived_seed(request.seed, n))
        for request in requests
        for n in range(drafts)
    ]
    made = _together(synthesizer, asked, slots, guarded=True)
    best = [
        max(made[first : first + drafts], key=partial(score, synthesizer))
        for first in range(0, len(made), drafts)
    ]
    shallow = [i for i, take in enumerate(best) if take.depth < requests[i].depth]
    deep = [synthesizer.mastering(best[i], requests[i].depth) for i in shallow]
    for i, take in zip(shallow, _together(synthesizer, deep, slots), strict=True):
        best[i] = replace(take, stop_reason=best[i].stop_reason)
    return best


def _together(
    synthesizer: Synthesizer, requests: Sequence[Request], slots: int, *, guarded: bool = False
) -> list[Take]:
    """By an engine of their own, in which they join and leave."""
    engine = Engine(
        synthesizer.tts,
        synthesizer.tokenizer,
        slots=slots,
        waiting=max(1, len(requests)),
        weights=synthesizer.weights,
    )
    tickets = [
        engine.submit(synthesizer.job(request, runaway_guard(request.text) if guarded else None))
        for request in requests
    ]
    while engine.busy:
        engine.step()
    config = synthesizer.tokenizer.config
    return [
        TakeStream(
            request, ticket, config, advance=lambda _: None, release=lambda: None, chunk_frames=1
        ).collect()
        for request, ticket in zip(requests, tickets, strict=True)
    ]
