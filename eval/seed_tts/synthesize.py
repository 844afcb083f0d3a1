"""Synthesize requests in a batch: once, as the best of several candidates, or in several attempts."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

from torch.nn import Parameter

from inference import SynthesisResult, Synthesizer
from inference.engine.engine import Engine
from inference.engine.request import Request
from inference.engine.seeds import derived_seed
from inference.synthesis.batch import synthesize_batch
from inference.synthesis.best_of_n import best_of_n_batch, is_acceptable, score
from inference.synthesis.speaker_adaptation import adapt_to_speaker, check_adaptation_steps
from inference.voices.voice import RecentCache, Voice

CACHE_BYTES = 2**32
"""Size of the cache of weights that are adapted to voices."""


class AdaptedSynthesizer:
    """A synthesizer that is adapted to the voice of each request.

    Args:
        synthesizer: the synthesizer.
        steps: None for no adaptation; 0 adapts the decoder alone; with one step or more, the weights of a
        copy of
            the TTS model are adapted too.

    Raises:
        ValueError: the number of steps is out of range.
    """

    def __init__(self, synthesizer: Synthesizer, steps: int | None) -> None:
        if steps is not None:
            check_adaptation_steps(steps)
        self.synthesizer, self.steps = synthesizer, steps
        self._adapted: RecentCache[Synthesizer] = RecentCache(CACHE_BYTES, self._bytes)

    def speak(
        self, requests: Sequence[Request], slots: int, candidates: int, retries: int = 0
    ) -> list[SynthesisResult]:
        """Synthesize requests as `speak` does; adapted models serve one request after another."""
        if self.steps is None:
            plain = [replace(request.voice, audio=None, decoder_adaptation=None) for request in requests]
            requests = [replace(request, voice=voice) for request, voice in zip(requests, plain, strict=True)]
        if not self.steps:
            return speak(self.synthesizer, requests, slots, candidates, retries)
        results: list[SynthesisResult] = []
        for request in requests:
            adapted = self._adapt(request.voice, self.steps)
            results += speak(adapted, [request], candidates, candidates, retries)
        return results

    def _adapt(self, voice: Voice, steps: int) -> Synthesizer:
        return self._adapted.get(
            (voice.key, voice.text), lambda: adapt_to_speaker(self.synthesizer, voice, steps)
        )

    def _bytes(self, adapted: Synthesizer) -> int:
        """Return the size of the weights that an adapted copy does not share."""
        shared = {id(weight) for weight in _weights(self.synthesizer)}
        return sum(weight.nbytes for weight in _weights(adapted) if id(weight) not in shared)


def _weights(synthesizer: Synthesizer) -> Iterator[Parameter]:
    return chain(synthesizer.tts.parameters(), synthesizer.tokenizer.parameters())


def speak(
    synthesizer: Synthesizer, requests: Sequence[Request], slots: int, candidates: int, retries: int = 0
) -> list[SynthesisResult]:
    """Synthesize requests in a batch, each as `cat-tts clone` does.

    Args:
        synthesizer: the model.
        requests: what to say.
        slots: how many sequences the engine generates at a time.
        candidates: from two on, the best of so many, as `--best-of` does.
        retries: further attempts where a result is not acceptable, as `--retries` does.
    """
    engine = Engine(
        synthesizer.tts,
        synthesizer.tokenizer,
        slots=slots,
        waiting=candidates * len(requests),
        weights=synthesizer.weights,
    )
    results: list[list[SynthesisResult]] = [[] for _ in requests]
    pending = list(range(len(requests)))
    for attempt in range(1 + retries):
        batch = [replace(requests[i], seed=derived_seed(requests[i].seed, attempt)) for i in pending]
        attempts = _attempt(synthesizer, engine, batch, candidates, retries > 0)
        for i, result in zip(pending, attempts, strict=True):
            results[i].append(result)
        pending = [i for i in pending if retries and not is_acceptable(synthesizer, results[i][-1])]
    best = partial(score, synthesizer)
    return [max(tried, key=best) if i in pending else tried[-1] for i, tried in enumerate(results)]


def _attempt(
    synthesizer: Synthesizer, engine: Engine, requests: Sequence[Request], candidates: int, guarded: bool
) -> list[SynthesisResult]:
    if candidates == 1:
        return synthesize_batch(synthesizer, engine, requests, guarded=guarded)
    return [choice.result for choice in best_of_n_batch(synthesizer, engine, requests, candidates)]
