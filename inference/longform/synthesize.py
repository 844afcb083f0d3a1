"""Synthesis of a text of any length in one voice: segment by segment, each with the same prompt."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cat_tts import SamplingOptions
from inference.engine.job import StopReason
from inference.engine.request import Mode, Request
from inference.engine.result import SynthesisResult
from inference.engine.seeds import derived_seed
from inference.longform.plan import plan
from inference.longform.segment_cache import CachedSegment, SegmentCache
from inference.longform.silence_trimming import trim_and_fade
from inference.synthesis.best_of_n import (
    CANDIDATE_DEPTH,
    best_of_n,
    is_acceptable,
    score,
    synthesize_guarded,
)
from inference.synthesis.synthesizer import Synthesizer
from inference.text.segmentation import SEGMENT_SECONDS, Segment
from inference.voices.prompt_audio import PromptAudio
from inference.voices.voice import Voice

RETRIES = 2


@dataclass(frozen=True, kw_only=True)
class LongFormOptions:
    """Options for the synthesis of a text of any length."""

    depth: int | None = None
    """Number of codebooks; all by default."""
    seed: int = 0
    sampling: SamplingOptions | None = None
    """Sampling options; by default those that suit the model."""
    mode: Mode = "continuation"
    segment_seconds: float = SEGMENT_SECONDS
    max_seconds: float | None = None
    """Length limit of every segment; by default it is derived from its text."""
    retries: int = RETRIES
    """Further attempts at a segment that ran away or reached its length limit, or is not intelligible."""
    candidates: int = 1
    """From 2 on, every attempt is the best of this many candidates."""
    candidate_depth: int = CANDIDATE_DEPTH

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ValueError(f"retries={self.retries}: give 0 for a single attempt, or more")
        if self.candidates < 1:
            raise ValueError(f"the best of {self.candidates} candidates: ask for at least 1")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of a synthesis."""

    segment: int
    """Index of the segment that is being synthesized, from 0."""
    segments: int
    attempt: int
    """Index of the attempt, from 0."""
    frames: int
    """Frames of the attempt, or of its longest candidate, so far; 0 at its beginning."""


@dataclass(frozen=True, kw_only=True)
class SegmentResult:
    """One synthesized segment with the pauses around it."""

    audio: Float[np.ndarray, " s"]
    """Samples with the pauses."""
    text: str
    seconds: float
    """Duration of the speech without the pauses."""
    stop_reason: StopReason
    attempts: int
    seed: int
    """Seed of the attempt that was chosen."""


@dataclass(frozen=True, kw_only=True)
class LongFormResult:
    """The synthesized audio of a whole text."""

    audio: Float[np.ndarray, " s"]
    sample_rate: int
    segments: tuple[SegmentResult, ...]

    @property
    def retries(self) -> int:
        """Attempts beyond the first, of all segments."""
        return sum(segment.attempts - 1 for segment in self.segments)

    @property
    def seconds(self) -> float:
        """Duration of the audio in seconds."""
        return len(self.audio) / self.sample_rate


def synthesize_long_form(
    synthesizer: Synthesizer,
    text: str,
    prompt_audio: PromptAudio | Voice,
    prompt_text: str = "",
    long_form: LongFormOptions | None = None,
    *,
    cache: Path | None = None,
    on_progress: Callable[[Progress], object] | None = None,
) -> LongFormResult:
    """Synthesize a text of any length; the arguments and errors are those of `synthesize_segments`.

    Returns:
        The joined segments.
    """
    segments = tuple(
        synthesize_segments(
            synthesizer, text, prompt_audio, prompt_text, long_form, cache=cache, on_progress=on_progress
        )
    )
    audio = np.concatenate([segment.audio for segment in segments])
    return LongFormResult(audio=audio, sample_rate=synthesizer.sample_rate, segments=segments)


def synthesize_segments(
    synthesizer: Synthesizer,
    text: str,
    prompt_audio: PromptAudio | Voice,
    prompt_text: str = "",
    long_form: LongFormOptions | None = None,
    *,
    cache: Path | None = None,
    on_progress: Callable[[Progress], object] | None = None,
) -> Generator[SegmentResult, None, None]:
    """Synthesize the segments of a text one by one, to be played one after another.

    An attempt that does not end by itself, or that a model with a CAT-ASR does not find intelligible, is
    repeated with another seed; when all fail, the one with the best score is chosen.

    Args:
        synthesizer: The models.
        text: A text of any length, which may contain pause directives, see `inference.text.segmentation`.
        prompt_audio: The prompt, see `Synthesizer.voice`.
        prompt_text: Transcript of the prompt.
        long_form: Options.
        cache: Folder in which segments are stored, and found when the same text is synthesized again: an
            interrupted synthesis is resumed.
        on_progress: Called at the beginning of every attempt and after its frames.

    Yields:
        The segments in order.

    Raises:
        ValueError: raised with the first segment where the text or an option cannot be used, in one line.
    """
    long_form = long_form or LongFormOptions()
    planned = plan(
        synthesizer,
        text,
        synthesizer.voice(prompt_audio, prompt_text),
        depth=long_form.depth,
        seed=long_form.seed,
        sampling=long_form.sampling,
        mode=long_form.mode,
        segment_seconds=long_form.segment_seconds,
        max_seconds=long_form.max_seconds,
    )
    segmented_text, requests = planned.segmented_text, planned.requests
    segment_cache = None if cache is None else SegmentCache(cache, synthesizer)
    settings = (
        long_form.retries,
        long_form.candidates,
        long_form.candidate_depth,
        long_form.max_seconds is not None,
    )
    for index, (request, segment) in enumerate(zip(requests, segmented_text.segments, strict=True)):

        def report(attempt: int, frames: int, index: int = index) -> None:
            if on_progress is not None:
                progress = Progress(segment=index, segments=len(requests), attempt=attempt, frames=frames)
                on_progress(progress)

        cached = segment_cache.find(request, settings) if segment_cache else None
        if cached is None:
            cached = _synthesize_segment(synthesizer, request, long_form, report)
            if segment_cache:
                segment_cache.store(request, settings, cached)
        audio = cached.audio
        if not planned.is_single_segment:
            audio = trim_and_fade(audio, synthesizer.sample_rate)
        lead = segmented_text.lead_seconds if index == 0 else 0.0
        yield SegmentResult(
            audio=_with_pauses(audio, lead, segment, synthesizer.sample_rate),
            text=segment.text,
            seconds=len(audio) / synthesizer.sample_rate,
            stop_reason=cached.stop_reason,
            attempts=cached.attempts,
            seed=cached.seed,
        )


def _synthesize_segment(
    synthesizer: Synthesizer, request: Request, long_form: LongFormOptions, report: Callable[[int, int], None]
) -> CachedSegment:
    """Make attempts until one is acceptable; else choose the best of them."""
    results: list[SynthesisResult] = []
    for attempt in range(1 + long_form.retries):
        retry = replace(request, seed=derived_seed(request.seed, attempt))
        results.append(_attempt(synthesizer, retry, long_form, lambda frames, n=attempt: report(n, frames)))
        limit_wanted = long_form.max_seconds is not None and results[-1].stop_reason == "limit"
        if limit_wanted or is_acceptable(synthesizer, results[-1]):
            best = results[-1]
            break
    else:
        best = max(results, key=partial(score, synthesizer))
    return CachedSegment(
        audio=best.audio, stop_reason=best.stop_reason, attempts=len(results), seed=best.seed
    )


def _attempt(
    synthesizer: Synthesizer, request: Request, long_form: LongFormOptions, on_frame: Callable[[int], None]
) -> SynthesisResult:
    on_frame(0)
    if long_form.candidates == 1:
        return synthesize_guarded(synthesizer, request, on_frame)
    best = best_of_n(
        synthesizer,
        request,
        long_form.candidates,
        candidate_depth=long_form.candidate_depth,
        on_frame=on_frame,
    )
    return best.result


def _with_pauses(
    audio: Float[np.ndarray, " s"], lead_seconds: float, segment: Segment, sample_rate: int
) -> Float[np.ndarray, " s"]:
    return np.pad(audio, (round(lead_seconds * sample_rate), round(segment.pause_seconds * sample_rate)))
