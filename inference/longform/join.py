"""Joining of the results of a text's segments, with the pauses between them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from inference.engine.job import StopReason
from inference.engine.result import SynthesisResult
from inference.longform.plan import SpeechPlan
from inference.longform.silence_trimming import trim_and_fade
from inference.synthesis.runner import Runner
from inference.voices.voice import Voices


def join(plan: SpeechPlan, results: Sequence[SynthesisResult], voices: Voices) -> SynthesisResult:
    """Join the results of a plan, or of its first segments.

    Args:
        plan: The segments.
        results: At least one result; the first belongs to the first segment.
        voices: Know the codes of silence.

    Returns:
        One result with the audio of `SynthesisStream`. Among its codes, a pause is whole frames of silence.
    """
    if plan.is_single_segment:
        return results[0]
    pauses = plan.pauses[: 1 + len(results)]
    joined = _joined(results, pauses, voices)
    reason = overall_stop_reason(results, len(plan.requests))
    return replace(joined, stop_reason=reason, seed=plan.options.seed)


def extend_depth(runner: Runner, result: SynthesisResult, depth: int | None = None) -> SynthesisResult:
    """Synthesize a result at another depth: its codes stay, and codes of deeper codebooks are added.

    They are sampled with the seed of the result, as in a synthesis at that depth whose first codebooks
    happened to be these.

    Args:
        runner: Synthesizes what is missing.
        result: What was synthesized at some depth.
        depth: Number of codebooks; all by default.

    Returns:
        The result at the other depth.

    Raises:
        ValueError: the result is empty, or the depth is out of range.
    """
    if not result.segments:
        if depth == result.depth:
            return result
        extended = runner.stream(runner.models.extension(result, depth)).collect()
        same = ("stop_reason", "attempts", "intelligibility", "acceptable")
        return replace(extended, **{name: getattr(result, name) for name in same})
    segments = [extend_depth(runner, segment, depth) for segment in result.segments]
    joined = _joined(segments, result.pauses, runner.models.voices)
    return replace(joined, stop_reason=result.stop_reason, seed=result.seed)


def overall_stop_reason(results: Sequence[SynthesisResult], segments: int) -> StopReason:
    """Return the first stop reason other than "end"; "cancelled" where results of segments are missing."""
    if len(results) < segments:
        return "cancelled"
    reasons: list[StopReason] = [result.stop_reason for result in results if result.stop_reason != "end"]
    return reasons[0] if reasons else "end"


def silence(seconds: float, sample_rate: int) -> list[Float[np.ndarray, " s"]]:
    """Return silence in parts of up to a second."""
    count = round(seconds * sample_rate)
    return [np.zeros(min(sample_rate, count - start), np.float32) for start in range(0, count, sample_rate)]


def _joined(segments: Sequence[SynthesisResult], pauses: Sequence[float], voices: Voices) -> SynthesisResult:
    first, lead = segments[0], pauses[0]
    audio, codes = silence(lead, first.sample_rate), [_silent_codes(voices, lead, first.depth)]
    for segment, pause in zip(segments, pauses[1:], strict=True):
        audio += [trim_and_fade(segment.audio, segment.sample_rate), *silence(pause, segment.sample_rate)]
        codes += [segment.codes, _silent_codes(voices, pause, segment.depth)]
    scores = [segment.intelligibility for segment in segments if segment.intelligibility is not None]
    return SynthesisResult(
        audio=np.concatenate(audio),
        sample_rate=first.sample_rate,
        codes=torch.cat(codes),
        depth=first.depth,
        bitrate=first.bitrate,
        seed=first.seed,
        stop_reason=first.stop_reason,
        attempts=sum(segment.attempts for segment in segments),
        intelligibility=min(scores, default=None),
        acceptable=all(segment.acceptable for segment in segments),
        segments=tuple(segments),
        pauses=tuple(pauses),
    )


def _silent_codes(voices: Voices, seconds: float, depth: int) -> Int[Tensor, "t k"]:
    frames = round(seconds * voices.tokenizer.config.frame_rate)
    codes = voices.silence[:frames, :depth] if frames else torch.zeros(0, depth, dtype=torch.long)
    return torch.cat([codes, codes[-1:].expand(frames - len(codes), -1)])
