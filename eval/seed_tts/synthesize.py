"""Many requests answered together, each by one take, the best of several drafts, or several attempts."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

from torch.nn import Parameter

from inference import Synthesizer, Take
from inference.engine.engine import Engine
from inference.engine.request import Request
from inference.engine.seeds import derived_seed
from inference.synthesis.batch import together
from inference.synthesis.best_of_n import best_of_each, satisfies, score
from inference.synthesis.speaker_adaptation import check_steps, tuned
from inference.voices.voice import Recent, Voice

KEPT_BYTES = 2**32
"""Of weights that are tuned to voices and kept for their next takes."""


class Tuned:
    """A synthesizer whose decoder is tuned to the voices of what is asked, unless `steps` is None; from one
    step on, copies of its model are too."""

    def __init__(self, synthesizer: Synthesizer, steps: int | None) -> None:
        if steps is not None:
            check_steps(steps)
        self.synthesizer, self.steps = synthesizer, steps
        self._kept: Recent[Synthesizer] = Recent(KEPT_BYTES, self._bytes)

    def speak(self, requests: Sequence[Request], slots: int, drafts: int, retries: int = 0) -> list[Take]:
        """`speak`; a model that is tuned answers its own voice only, one request after another."""
        if self.steps is None:
            plain = [replace(one.voice, audio=None, timbre=None) for one in requests]
            requests = [replace(one, voice=voice) for one, voice in zip(requests, plain, strict=True)]
        if not self.steps:
            return speak(self.synthesizer, requests, slots, drafts, retries)
        takes: list[Take] = []
        for one in requests:
            takes += speak(self._of(one.voice, self.steps), [one], drafts, drafts, retries)
        return takes

    def _of(self, voice: Voice, steps: int) -> Synthesizer:
        return self._kept.of((voice.key, voice.text), lambda: tuned(self.synthesizer, voice, steps))

    def _bytes(self, one: Synthesizer) -> int:
        """Of the weights that it does not share."""
        shared = {id(weight) for weight in _weights(self.synthesizer)}
        return sum(weight.nbytes for weight in _weights(one) if id(weight) not in shared)


def _weights(synthesizer: Synthesizer) -> Iterator[Parameter]:
    return chain(synthesizer.tts.parameters(), synthesizer.tokenizer.parameters())


def speak(
    synthesizer: Synthesizer, requests: Sequence[Request], slots: int, drafts: int, retries: int = 0
) -> list[Take]:
    """What `cat-tts clone` gives, with `--best-of` from two drafts on, and with so many `--retries`."""
    engine = Engine(
        synthesizer.tts,
        synthesizer.tokenizer,
        slots=slots,
        waiting=drafts * len(requests),
        weights=synthesizer.weights,
    )
    made: list[list[Take]] = [[] for _ in requests]
    wanting = list(range(len(requests)))
    for attempt in range(1 + retries):
        asked = [replace(requests[i], seed=derived_seed(requests[i].seed, attempt)) for i in wanting]
        for i, take in zip(wanting, _attempt(synthesizer, engine, asked, drafts, retries > 0), strict=True):
            made[i].append(take)
        wanting = [i for i in wanting if retries and not satisfies(synthesizer, made[i][-1])]
    best = partial(score, synthesizer)
    return [max(takes, key=best) if i in wanting else takes[-1] for i, takes in enumerate(made)]


def _attempt(
    synthesizer: Synthesizer, engine: Engine, requests: Sequence[Request], drafts: int, guarded: bool
) -> list[Take]:
    if drafts == 1:
        return together(synthesizer, engine, requests, guarded=guarded)
    return [choice.take for choice in best_of_each(synthesizer, engine, requests, drafts)]
