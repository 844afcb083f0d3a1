"""How good a result is: whether it ended by itself, whether its text is in it, and how plausible it is."""

import math

import numpy as np
from jaxtyping import Float

from cat_tts.asr.ctc_score import MIN_CTC_SCORE, ctc_score
from cat_tts.asr.model import CatASR
from inference.engine.result import SynthesisResult
from inference.text.duration import expected_frames

MIN_DURATION_RATIO, MAX_DURATION_RATIO = 0.5, 3.0
"""Limits of the duration of a prompt relative to the expected one; beyond, its transcript does not fit it."""
MIN_INTELLIGIBILITY = -0.6
"""Value of `intelligibility` that is good enough: two of three results of the embedded model reach it."""
MIN_PITCH, MAX_PITCH = 60.0, 400.0
"""Range of the pitch of voices in Hz."""


def intelligibility(asr_model: CatASR | None, result: SynthesisResult) -> float | None:
    """Return the `cat_tts.asr.ctc_score.ctc_score` of the requested text given the codes of a result.

    Args:
        asr_model: The recogniser of codes, if there is one.
        result: What was synthesized.

    Returns:
        The score, -9 at worst; None where nobody can tell: without a recogniser, or for a text without a
        symbol that it knows.
    """
    if asr_model is None or result.request is None or not len(result.codes):
        return None
    if not asr_model.ctc_targets(result.request.text):
        return None
    codes = result.codes[:, : asr_model.config.num_codebooks]
    return max(ctc_score(asr_model, [codes], result.request.text)[0], MIN_CTC_SCORE)


def is_acceptable(result: SynthesisResult) -> bool:
    """Return whether a single result, whose intelligibility was measured, needs no further attempt.

    It ended by itself, or at the limit that the user set, and what can be recognised is what was to be said.
    """
    limit_wanted = result.request is not None and result.request.options.max_seconds is not None
    ended = result.stop_reason == "end" or (limit_wanted and result.stop_reason == "limit")
    return ended and (result.intelligibility is None or result.intelligibility >= MIN_INTELLIGIBILITY)


def score(result: SynthesisResult) -> float:
    """Score a single result by its plausibility, and its intelligibility where that was measured.

    Args:
        result: What was synthesized.

    Returns:
        A score that is higher for better results.
    """
    plausible = plausibility(result)
    if result.intelligibility is None:
        return plausible
    return plausible + result.intelligibility


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
