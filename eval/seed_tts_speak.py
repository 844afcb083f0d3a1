"""Many requests answered together, each by one take or by the best of several drafts."""

from collections.abc import Sequence
from dataclasses import replace

from inference import Synthesizer, Take
from inference.drafts import DRAFT_DEPTH, derived_seed, score
from inference.engine import Engine
from inference.request import Request
from inference.together import together


def speak(synthesizer: Synthesizer, requests: Sequence[Request], slots: int, drafts: int) -> list[Take]:
    """As `inference.drafts.best_of` does for one: what `cat-tts clone --best-of` gives."""
    engine = Engine(
        synthesizer.tts,
        synthesizer.tokenizer,
        slots=slots,
        waiting=max(1, drafts * len(requests)),
        weights=synthesizer.weights,
    )
    if drafts == 1:
        return together(synthesizer, engine, requests)
    asked = [
        replace(request, depth=min(DRAFT_DEPTH, request.depth), seed=derived_seed(request.seed, n))
        for request in requests
        for n in range(drafts)
    ]
    made = together(synthesizer, engine, asked, guarded=True)
    best = [
        max(made[first : first + drafts], key=lambda take: score(synthesizer, take))
        for first in range(0, len(made), drafts)
    ]
    shallow = [i for i, take in enumerate(best) if take.depth < requests[i].depth]
    deep = [synthesizer.mastering(best[i], requests[i].depth) for i in shallow]
    for i, take in zip(shallow, together(synthesizer, engine, deep), strict=True):
        best[i] = replace(take, stop_reason=best[i].stop_reason)
    return best
