"""Best-of-N: cheap candidates at a shallow depth, of which the best one is extended to full depth."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from cat_tts.asr.ctc_score import MIN_CTC_SCORE, ctc_score
from cat_tts.asr.model import CatASR
from inference.engine.engine import Engine
from inference.engine.request import Request
from inference.engine.result import SynthesisResult
from inference.engine.seeds import derived_seed
from inference.engine.stopping_rules import runaway_guard
from inference.synthesis.batch import synthesize_batch
from inference.synthesis.synthesizer import Synthesizer
from inference.text.duration import expected_frames

MAX_PARALLEL_CANDIDATES = 8
"""Candidates that are synthesized at a time."""
CANDIDATE_DEPTH = 4
"""Enough to distinguish words and voice, at a fraction of the computation."""
MIN_DURATION_RATIO, MAX_DURATION_RATIO = 0.5, 3.0
"""Limits of the duration of a prompt relative to the expected one; beyond, its transcript does not fit it."""
MIN_INTELLIGIBILITY = -0.6
"""Value of `intelligibility` that is good enough: two of three results of the embedded model reach it."""
MIN_PITCH, MAX_PITCH = 60.0, 400.0
"""Range of the pitch of voices in Hz."""

Scorer = Callable[[SynthesisResult], float]
"""A function that gives better results a higher score."""


@dataclass(frozen=True, kw_only=True)
class BestCandidate:
    """The best candidate, extended to full depth, and the scores of all candidates."""

    result: SynthesisResult
    scores: tuple[float, ...]


def best_of_n(
    synthesizer: Synthesizer,
    request: Request,
    candidates: int,
    *,
    candidate_depth: int = CANDIDATE_DEPTH,
    scorer: Scorer | None = None,
    on_frame: Callable[[int], object] | None = None,
) -> BestCandidate:
    """Run `best_of_n_batch` for one request, on an engine of the synthesizer.

    Args:
        synthesizer: The models.
        request: What to synthesize, and at which depth.
        candidates: Number of candidates N.
        candidate_depth: Number of codebooks of the candidates.
        scorer: What ranks the candidates; `score` by default.
        on_frame: Called with the number of frames of the longest candidate so far.

    Returns:
        The best candidate at the depth of the request.

    Raises:
        ValueError: fewer than 1 candidate, or a depth below 1.
    """
    engine = synthesizer.engine(max(1, min(candidates, MAX_PARALLEL_CANDIDATES)))
    (best,) = best_of_n_batch(
        synthesizer,
        engine,
        [request],
        candidates,
        candidate_depth=candidate_depth,
        scorer=scorer,
        on_frame=on_frame,
    )
    return best


def best_of_n_batch(
    synthesizer: Synthesizer,
    engine: Engine,
    requests: Sequence[Request],
    candidates: int,
    *,
    candidate_depth: int = CANDIDATE_DEPTH,
    scorer: Scorer | None = None,
    on_frame: Callable[[int], object] | None = None,
) -> list[BestCandidate]:
    """Synthesize candidates of several requests together, and extend the best of each to its full depth.

    Args:
        synthesizer: The models of `engine`.
        engine: An engine with room for all candidates.
        requests: What to synthesize; the seeds of candidates are derived from those of the requests.
        candidates: Number of candidates N of each request.
        candidate_depth: Number of codebooks of the candidates.
        scorer: What ranks the candidates; `score` by default. Of equal scores the first wins.
        on_frame: Called with the number of frames of the longest candidate so far.

    Returns:
        The best candidate of each request.

    Raises:
        ValueError: fewer than 1 candidate, or a depth below 1.
        EngineBusy: the engine has not enough room.
    """
    if candidates < 1:
        raise ValueError(f"the best of {candidates} candidates: ask for at least 1")
    if candidate_depth < 1:
        raise ValueError(f"candidates of depth {candidate_depth}: choose 1 or more")
    candidate_requests = [
        replace(request, depth=min(candidate_depth, request.depth), seed=derived_seed(request.seed, n))
        for request in requests
        for n in range(candidates)
    ]
    results = synthesize_batch(synthesizer, engine, candidate_requests, guarded=True, on_frame=on_frame)
    scores = [scorer(result) if scorer else score(synthesizer, result) for result in results]
    starts = range(0, len(results), candidates)
    best = [results[max(range(start, start + candidates), key=lambda n: (scores[n], -n))] for start in starts]
    shallow = [i for i, result in enumerate(best) if result.depth < requests[i].depth]
    extensions = [synthesizer.extension_request(best[i], requests[i].depth) for i in shallow]
    for i, result in zip(shallow, synthesize_batch(synthesizer, engine, extensions), strict=True):
        best[i] = replace(result, stop_reason=best[i].stop_reason)
    return [
        BestCandidate(result=result, scores=tuple(scores[start : start + candidates]))
        for result, start in zip(best, starts, strict=True)
    ]


def synthesize_guarded(
    synthesizer: Synthesizer, request: Request, on_frame: Callable[[int], object] | None = None
) -> SynthesisResult:
    """Synthesize a request, and end it early where speech runs away.

    Args:
        synthesizer: The models.
        request: What to synthesize.
        on_frame: Called with the number of frames so far.

    Returns:
        The result, whose `stop_reason` tells how it ended.
    """
    with synthesizer.start(request, guard=runaway_guard(request.text)) as stream:
        for _ in stream:
            if on_frame is not None:
                on_frame(stream.frames)
    return stream.result


def score(synthesizer: Synthesizer, result: SynthesisResult) -> float:
    """Score a result by its plausibility, and by how well its text can be recognised where possible.

    A model with a CAT-ASR adds `intelligibility`.

    Args:
        synthesizer: The models.
        result: What was synthesized.

    Returns:
        A score that is higher for better results.
    """
    plausible = plausibility(result)
    if result.request is None or not len(result.codes) or synthesizer.asr_model is None:
        return plausible
    return plausible + max(intelligibility(synthesizer.asr_model, result), MIN_CTC_SCORE)


def intelligibility(asr_model: CatASR, result: SynthesisResult) -> float:
    """Return the `cat_tts.asr.ctc_score.ctc_score` of the requested text given the codes of a result.

    Args:
        asr_model: The recogniser of codes.
        result: What was synthesized.

    Returns:
        The score; 0 where the text has no symbol that the recogniser knows.
    """
    if result.request is None or not asr_model.ctc_targets(result.request.text):
        return 0.0
    codes = result.codes[:, : asr_model.config.num_codebooks]
    return ctc_score(asr_model, [codes], result.request.text)[0]


def is_acceptable(synthesizer: Synthesizer, result: SynthesisResult) -> bool:
    """Return whether a result needs no retry: it ended by itself and, with a CAT-ASR, is intelligible."""
    asr_model = synthesizer.asr_model
    return result.stop_reason == "end" and (
        asr_model is None or intelligibility(asr_model, result) >= MIN_INTELLIGIBILITY
    )


def plausibility(result: SynthesisResult) -> float:
    """Estimate without a recogniser how likely it is that the text was spoken as it should be.

    One point for an end that the model decided; less the absolute logarithm of the ratio between the duration
    and the expected duration at the speaking rate of the prompt; and up to one point for the share of voiced
    frames, which is complete at half of them, as in speech.

    Args:
        result: What was synthesized.

    Returns:
        The points; minus infinity for a result without frames.
    """
    if not len(result.codes):
        return -math.inf
    ended = float(result.stop_reason == "end")
    ratio = len(result.codes) / expected_frames_at_prompt_rate(result)
    return ended - abs(math.log(ratio)) + min(1.0, 2 * voiced_share(result))


def expected_frames_at_prompt_rate(result: SynthesisResult) -> float:
    """Return the number of frames that the text takes at the speaking rate of the prompt.

    Raises:
        ValueError: the result was joined from several, and does not tell its request.
    """
    if result.request is None:
        raise ValueError("this result has no request: score the results that it was joined from")
    voice = result.request.voice
    ratio = len(voice.codes) / expected_frames(voice.text) if voice.text.strip() else 1.0
    return max(
        1.0, expected_frames(result.request.text) * min(max(ratio, MIN_DURATION_RATIO), MAX_DURATION_RATIO)
    )


def voiced_share(result: SynthesisResult) -> float:
    """Return the share of blocks of 40 ms that have a pitch."""
    return float(voiced(result.audio, result.sample_rate).mean())


def voiced(audio: Float[np.ndarray, " s"], sample_rate: int) -> Float[np.ndarray, " t"]:
    """Find the voiced blocks of 40 ms, by a clear peak of their autocorrelation at a pitch period.

    Args:
        audio: Samples [s].
        sample_rate: Samples per second.

    Returns:
        1 [t] for voiced blocks that are not 40 dB below the loudest, else 0.
    """
    size = sample_rate // 25
    frames = audio[: len(audio) // size * size].reshape(-1, size).astype(np.float64)
    frames = frames - frames.mean(1, keepdims=True)
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 2 * size)) ** 2)[:, :size]
    power = correlation[:, 0]
    shortest, longest = int(sample_rate / MAX_PITCH), int(sample_rate / MIN_PITCH)
    lags = np.arange(shortest, longest + 1)
    peak = (correlation[:, lags] * size / (size - lags)).max(1)
    loud = power > max(float(power.max(initial=0.0)) * 1e-4, 1e-9)
    return (loud & (peak > 0.5 * power)).astype(np.float64)
