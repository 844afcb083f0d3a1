"""How good a result is: plausible, intelligible, acceptable."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cat_tts.asr import config as asr_config
from cat_tts.asr.ctc_score import MIN_CTC_SCORE, ctc_score
from cat_tts.asr.model import CatASR
from inference import SynthesisResult, Synthesizer
from inference.engine.job import StopReason
from inference.engine.options import UNWATCHED, SynthesisOptions
from inference.synthesis.quality import (
    MIN_INTELLIGIBILITY,
    expected_frames_at_prompt_rate,
    intelligibility,
    is_acceptable,
    plausibility,
    score,
    voiced,
)

PROMPT_TEXT, TEXT = "What the recording says.", "Dogs sleep."


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture(scope="module")
def result(synthesizer: Synthesizer, prompt_file: Path) -> SynthesisResult:
    """Return a result for 11 characters, by a prompt of 15 frames for 24 characters (21.6 expected)."""
    return synthesizer.synthesize(
        TEXT, synthesizer.load_voice(prompt_file, PROMPT_TEXT), SynthesisOptions(depth=2, policy=UNWATCHED)
    )


def test_plausibility_by_hand(result: SynthesisResult) -> None:
    """At the speaking rate of the prompt the text takes 9.9 * 15 / 21.6 = 6.875 frames."""
    assert expected_frames_at_prompt_rate(result) == pytest.approx(6.875)

    def score(frames: int, stop_reason: str, sound: str) -> float:
        time = np.arange(frames * 1920) / 24_000
        tone, silence = 0.1 * np.sin(2 * np.pi * 150 * time), np.zeros(len(time))
        audio = {"voice": tone, "silence": silence, "quarter": np.where(time < time[-1] / 4, tone, 0)}[sound]
        codes = torch.zeros(frames, 2, dtype=torch.long)
        changed = replace(result, audio=audio.astype(np.float32), codes=codes, stop_reason=stop_reason)
        return plausibility(changed)

    assert score(8, "end", "voice") == pytest.approx(2 - math.log(8 / 6.875))
    assert score(8, "limit", "voice") == pytest.approx(1 - math.log(8 / 6.875))
    assert score(4, "end", "silence") == pytest.approx(1 - math.log(6.875 / 4))
    assert score(8, "silence", "quarter") == pytest.approx(0.5 - math.log(8 / 6.875))
    assert plausibility(replace(result, codes=result.codes[:0])) == -math.inf
    with pytest.raises(ValueError, match="has no request"):
        plausibility(replace(result, request=None))


@pytest.fixture(scope="module")
def asr_model() -> CatASR:
    torch.manual_seed(0)
    return CatASR(asr_config.tiny()).eval()


@pytest.fixture(scope="module")
def long_result(result: SynthesisResult) -> SynthesisResult:
    """Return a result with more frames than its text has letters."""
    codes = torch.randint(32, (20, 2), generator=torch.Generator().manual_seed(0))
    return replace(result, codes=codes, audio=np.resize(result.audio, 20 * 1920))


def test_intelligibility_is_the_ctc_score(asr_model: CatASR, long_result: SynthesisResult) -> None:
    result = long_result
    assert result.request is not None
    (expected,) = ctc_score(asr_model, [result.codes], TEXT)
    assert intelligibility(asr_model, result) == expected != 0
    crowded = replace(result, request=replace(result.request, text=TEXT * 9))
    assert intelligibility(asr_model, crowded) == MIN_CTC_SCORE


def test_intelligibility_that_nobody_can_tell(asr_model: CatASR, long_result: SynthesisResult) -> None:
    assert long_result.request is not None
    soundless = replace(long_result, request=replace(long_result.request, text=""))
    assert intelligibility(asr_model, soundless) is None
    assert intelligibility(asr_model, replace(long_result, request=None)) is None
    assert intelligibility(asr_model, replace(long_result, codes=long_result.codes[:0])) is None
    assert intelligibility(None, long_result) is None


def test_the_score_contains_the_intelligibility(long_result: SynthesisResult) -> None:
    plausible = plausibility(long_result)
    assert score(long_result) == plausible
    assert score(replace(long_result, intelligibility=-0.5)) == plausible - 0.5


@pytest.mark.parametrize(
    ("stop_reason", "score", "limit", "acceptable"),
    [
        ("end", None, None, True),
        ("end", MIN_INTELLIGIBILITY, None, True),
        ("end", MIN_INTELLIGIBILITY - 0.01, None, False),
        ("limit", None, None, False),
        ("limit", None, 2.0, True),
        ("limit", -5.0, 2.0, False),
        ("repetition", -0.1, 2.0, False),
        ("silence", -0.1, None, False),
        ("cancelled", None, None, False),
    ],
)
def test_is_acceptable(
    long_result: SynthesisResult,
    stop_reason: StopReason,
    score: float | None,
    limit: float | None,
    acceptable: bool,
) -> None:
    """A result ends by itself, or where the user said, and its text is recognised."""
    assert long_result.request is not None
    request = long_result.request.changed(max_seconds=limit)
    changed = replace(long_result, stop_reason=stop_reason, intelligibility=score, request=request)
    assert is_acceptable(changed) == acceptable


def test_voiced(voice: np.ndarray) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(24_000).astype(np.float32)
    assert voiced(voice, 24_000).mean() > 0.9
    assert not voiced(noise, 24_000).any() and not voiced(np.zeros(24_000, np.float32), 24_000).any()
    assert not voiced(np.concatenate([noise, 0.0005 * voice]), 24_000)[-25:].any()
    assert len(voiced(voice[:959], 24_000)) == 0
