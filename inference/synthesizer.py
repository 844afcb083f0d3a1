"""Voice cloning: text and a prompt in, speech in the prompt's voice out."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from inference.engine.options import MAX_ADAPT_STEPS, SynthesisOptions, check_whole, in_one_line
from inference.engine.request import check_texts
from inference.engine.result import SynthesisResult
from inference.longform.join import extend_depth, join
from inference.longform.plan import SpeechPlan, plan
from inference.longform.stream import Progress, SynthesisStream
from inference.synthesis.attempts import Attempts, SynthesisFailed
from inference.synthesis.models import SpeechModels
from inference.synthesis.runner import MAX_OPEN_STREAMS, LocalRunner
from inference.synthesis.speaker_adaptation import adapt_to_speaker
from inference.voices.recent_cache import RecentCache
from inference.voices.source import VoiceSource
from inference.voices.voice import Voice

MAX_ADAPTED = 4
"""Adapted models that are cached: each is as large as the model."""
MAX_SLOTS = 8
"""Candidates that are synthesized at a time."""


class Synthesizer(SpeechModels):
    """A TTS model and an audio tokenizer that clone voices.

    synthesizer = Synthesizer.from_pretrained()
    wav, sample_rate = synthesizer.clone("Good morning.", "prompt.wav", "What the prompt says.")
    """

    def clone(
        self, text: str, prompt_audio: VoiceSource | Voice, prompt_text: str = "", **options: Any
    ) -> tuple[Float[np.ndarray, " s"], int]:
        """Speak a text in the voice of a prompt.

        Args:
            text: What to speak, of any length; [pause 1.2s] in it is silence.
            prompt_audio: A recording, a voice file or a voice, see `load_voice`.
            prompt_text: Transcript of a recording.
            options: Those of `SynthesisOptions`, by name.

        Returns:
            Samples [s] in [-1, 1], and their rate in Hz.

        Raises:
            ValueError: the text, the prompt or an option cannot be used.
        """
        chosen = self.resolve(SynthesisOptions(**options))
        check_texts(text, "is in the prompt", chosen.mode)  # before time is spent on the prompt
        voice = self.load_voice(prompt_audio, prompt_text, adapt_decoder=chosen.adapt_decoder)
        result = self.synthesize(text, voice, chosen)
        return result.audio, result.sample_rate

    def synthesize(
        self,
        text: str,
        voice: Voice,
        options: SynthesisOptions | None = None,
        *,
        cache: str | Path | None = None,
        on_progress: Callable[[Progress], object] | None = None,
    ) -> SynthesisResult:
        """Speak a text and return the complete result.

        Attempts that fail are repeated, as the policy of the options says; the result tells what was done.

        Args:
            text: What to speak, of any length; [pause 1.2s] in it is silence.
            voice: The voice, of `load_voice`.
            options: How to speak.
            cache: Folder in which the segments of the text are stored, and found when the same text is
                synthesized again: an interrupted synthesis is resumed.
            on_progress: Called at the beginning of every attempt and after its frames.

        Returns:
            The result, with one more for each segment where there are several.

        Raises:
            ValueError: the text, the voice or an option cannot be used.
            SynthesisFailed: all attempts failed, and the policy is strict.
        """
        models, planned = self._prepare(text, voice, options)
        runner = models._runner(planned.options.policy.candidates)
        with SynthesisStream(runner, planned, cache=cache, on_progress=on_progress) as stream:
            return stream.collect()

    def stream(
        self, text: str, voice: Voice, options: SynthesisOptions | None = None, *, chunk_frames: int = 1
    ) -> SynthesisStream:
        """Speak a text and stream the audio while it is synthesized.

        The first segment is played while it is synthesized, and what was played cannot be taken back; later
        segments are checked first, as `synthesize` does.

        Args:
            text: What to speak, of any length; [pause 1.2s] in it is silence.
            voice: The voice, of `load_voice`.
            options: How to speak.
            chunk_frames: Frames that are returned at a time; this changes no sample.

        Returns:
            The stream, whose `result` is that of `synthesize` where the first attempt at the first segment is
            accepted.

        Raises:
            ValueError: the text, the voice or an option cannot be used.
        """
        models, planned = self._prepare(text, voice, options)
        runner = models._runner(planned.options.policy.candidates)
        return SynthesisStream(runner, planned, live=True, chunk_frames=chunk_frames)

    def synthesize_batch(
        self,
        texts: Sequence[str],
        voices: Sequence[Voice],
        options: SynthesisOptions | None = None,
        *,
        slots: int = MAX_SLOTS,
    ) -> list[SynthesisResult]:
        """Speak several texts together, each as `synthesize` does. No output depends on the others.

        Args:
            texts: What to speak.
            voices: A voice for each text.
            options: How to speak, the same for all.
            slots: How many requests are synthesized at a time.

        Returns:
            A result for each text, in their order.

        Raises:
            ValueError: a text, a voice or an option cannot be used.
            SynthesisFailed: all attempts at a text failed, and the policy is strict.
        """
        options, slots = self.resolve(options), check_whole("slots", slots, 1, MAX_OPEN_STREAMS)
        if isinstance(texts, str) or isinstance(voices, Voice) or len(texts) != len(voices):
            raise ValueError("give a list of texts, and a list of as many voices")
        pairs = list(zip(texts, voices, strict=True))
        if options.adapt_steps:  # every voice has a model of its own
            return [self.synthesize(text, voice, options) for text, voice in pairs]
        planned = [plan(self, text, voice, options) for text, voice in pairs]
        requests = [request for each in planned for request in each.requests]
        attempts, results = Attempts(LocalRunner(self, slots), options.policy), list[SynthesisResult]()
        at_once = MAX_OPEN_STREAMS // options.policy.candidates
        for start in range(0, len(requests), at_once):
            results += attempts.run(requests[start : start + at_once])
        remaining = iter(results)
        joined = [join(each, [next(remaining) for _ in each.requests], self.voices) for each in planned]
        for result in joined:
            if options.policy.strict and not result.acceptable:
                raise SynthesisFailed(result)
        return joined

    def extend_depth(self, result: SynthesisResult, depth: int | None = None) -> SynthesisResult:
        """Synthesize a result at another depth: its codes are kept, and codes of deeper codebooks are added.

        They are sampled with the seed of the result, as in a synthesis at that depth whose first codebooks
        happened to be these.

        Args:
            result: What was synthesized at some depth.
            depth: Number of codebooks; all by default.

        Returns:
            The result at the other depth.

        Raises:
            ValueError: the result is empty, or the depth is out of range.
        """
        if not isinstance(result, SynthesisResult):
            raise ValueError(f"{in_one_line(result)} is no result: extend what synthesize returned")
        request = result.parts[0].request
        models = self if request is None else self.adapted(request.voice, request.options.adapt_steps)
        return extend_depth(models._runner(1), result, depth)

    def adapted(self, voice: Voice, steps: int) -> "Synthesizer":
        """Return a synthesizer whose TTS model is adapted to a voice; the latest few are cached.

        Args:
            voice: The voice with its transcript.
            steps: Training steps, see `adapt_to_speaker`; 0 returns this synthesizer.

        Returns:
            A synthesizer that shares all but the TTS model.

        Raises:
            ValueError: as `adapt_to_speaker`.
        """
        if not check_whole("steps", steps, 0, MAX_ADAPT_STEPS):
            return self
        key = voice.key, voice.text, steps
        if self.adapted_to == key:
            return self
        return self._adapted.get(key, lambda: adapt_to_speaker(self, voice, steps))

    def _prepare(
        self, text: str, voice: Voice, options: SynthesisOptions | None
    ) -> tuple["Synthesizer", SpeechPlan]:
        planned = plan(self, text, voice, options)  # refuses what cannot be used, before anything is trained
        return self.adapted(voice, planned.options.adapt_steps), planned

    def _runner(self, slots: int) -> LocalRunner:
        """Return a runner with that many slots; the latest one is cached beside that with a single slot."""
        slots = min(slots, MAX_SLOTS)
        if slots not in self._runners:
            self._runners = {n: runner for n, runner in self._runners.items() if n == 1}
            self._runners[slots] = LocalRunner(self, slots)
        return self._runners[slots]

    @cached_property
    def _runners(self) -> dict[int, LocalRunner]:
        return {}

    @cached_property
    def _adapted(self) -> RecentCache["Synthesizer"]:
        return RecentCache(MAX_ADAPTED, lambda _: 1)
