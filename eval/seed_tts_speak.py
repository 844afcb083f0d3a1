"""Many requests answered together, each by one take or by the best of several drafts."""

from collections.abc import Sequence

from inference import Synthesizer, Take
from inference.drafts import best_of_each
from inference.engine import Engine
from inference.request import Request
from inference.together import together


def speak(synthesizer: Synthesizer, requests: Sequence[Request], slots: int, drafts: int) -> list[Take]:
    """What `cat-tts clone` gives, with `--best-of` from two drafts on."""
    engine = Engine(
        synthesizer.tts,
        synthesizer.tokenizer,
        slots=slots,
        waiting=drafts * len(requests),
        weights=synthesizer.weights,
    )
    if drafts == 1:
        return together(synthesizer, engine, requests)
    return [choice.take for choice in best_of_each(synthesizer, engine, requests, drafts)]
