"""Many requests answered together, each by one take or by the best of several drafts."""

from collections.abc import Iterator, Sequence
from itertools import chain

from torch.nn import Parameter

from inference import Synthesizer, Take
from inference.drafts import best_of_each
from inference.engine import Engine
from inference.request import Request
from inference.together import together
from inference.tuning import check_steps, tuned
from inference.voice import Recent

KEPT_BYTES = 2**32
"""Of weights that are tuned to voices and kept for their next takes."""


class Tuned:
    """A synthesizer; where there are `steps`, copies of it that are tuned to the voices of what is asked."""

    def __init__(self, synthesizer: Synthesizer, steps: int | None) -> None:
        if steps is not None:
            check_steps(steps)
        self.synthesizer, self.steps = synthesizer, steps
        self._kept: Recent[Synthesizer] = Recent(KEPT_BYTES, self._bytes)

    def speak(self, requests: Sequence[Request], slots: int, drafts: int) -> list[Take]:
        """`speak`; a tuned model answers its own voice only, one request after another."""
        if self.steps is None:
            return speak(self.synthesizer, requests, slots, drafts)
        return [take for one in requests for take in speak(self._of(one), [one], drafts, drafts)]

    def _of(self, request: Request) -> Synthesizer:
        key = request.voice.key, request.voice.text
        steps = self.steps or 0
        return self._kept.of(key, lambda: tuned(self.synthesizer, request.voice, steps))

    def _bytes(self, one: Synthesizer) -> int:
        """Of the weights that it does not share."""
        shared = {id(weight) for weight in _weights(self.synthesizer)}
        return sum(weight.nbytes for weight in _weights(one) if id(weight) not in shared)


def _weights(synthesizer: Synthesizer) -> Iterator[Parameter]:
    return chain(synthesizer.tts.parameters(), synthesizer.tokenizer.parameters())


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
