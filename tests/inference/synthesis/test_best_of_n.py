"""Best-of-N: seeds and ranking of candidates, and extension of the best."""

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
from inference.engine.seeds import derived_seed
from inference.synthesis.best_of_n import (
    best_of_n,
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
    return synthesizer.synthesize(TEXT, prompt_file, PROMPT_TEXT, depth=2)


def test_the_best_candidate_is_extended(synthesizer: Synthesizer, prompt_file: Path) -> None:
    """The candidate that the scorer prefers keeps its codes, and deeper ones are added."""
    request = synthesizer.request(TEXT, prompt_file, PROMPT_TEXT, depth=4, seed=9)
    candidates = [
        synthesizer.synthesize(TEXT, prompt_file, PROMPT_TEXT, depth=2, seed=derived_seed(9, n))
        for n in range(3)
    ]
    for preferred in range(3):
        best = best_of_n(
            synthesizer,
            request,
            3,
            candidate_depth=2,
            scorer=lambda result, best=preferred: result.seed == candidates[best].seed,
        )
        assert best.scores == tuple(n == preferred for n in range(3))
        assert best.result.depth == 4 and best.result.seed == candidates[preferred].seed
        assert best.result.stop_reason == candidates[preferred].stop_reason
        assert torch.equal(best.result.codes[:, :2], candidates[preferred].codes)
    assert best_of_n(synthesizer, request, 3, candidate_depth=2, scorer=lambda result: 0.0).result.seed == 9


def test_a_single_candidate_at_full_depth_is_the_result(synthesizer: Synthesizer, prompt_file: Path) -> None:
    request = synthesizer.request(TEXT, prompt_file, PROMPT_TEXT, seed=9)
    best = best_of_n(synthesizer, request, 1, candidate_depth=99)
    assert np.array_equal(
        best.result.audio, synthesizer.synthesize(TEXT, prompt_file, PROMPT_TEXT, seed=9).audio
    )
    assert best.scores == (plausibility(best.result),)


def test_candidates_are_cancelled_when_the_caller_is_interrupted(
    synthesizer: Synthesizer, prompt_file: Path
) -> None:
    def give_up(frames: int) -> None:
        reported.append(frames)
        if frames == 3:
            raise KeyboardInterrupt

    reported: list[int] = []
    request = synthesizer.request("The young dog sleeps.", prompt_file, PROMPT_TEXT, seed=9)
    with pytest.raises(KeyboardInterrupt):
        best_of_n(synthesizer, request, 10, on_frame=give_up)
    assert reported == [1, 2, 3] and not synthesizer.engine(8).busy
    reported.clear()
    best_of_n(synthesizer, request, 3, on_frame=reported.append)
    assert reported == list(range(1, 1 + reported[-1])) and synthesizer.engine(3) is synthesizer.engine(3)


def test_refusals(synthesizer: Synthesizer, prompt_file: Path) -> None:
    request = synthesizer.request(TEXT, prompt_file, PROMPT_TEXT)
    with pytest.raises(ValueError, match="the best of 0 candidates: ask for at least 1"):
        best_of_n(synthesizer, request, 0)
    with pytest.raises(ValueError, match="candidates of depth 0: choose 1 or more"):
        best_of_n(synthesizer, request, 2, candidate_depth=0)


def test_derived_seeds() -> None:
    """Seeds are all different, fit any generator, and are the same on every machine."""
    paths = [(n, m) for n in range(30) for m in range(30)]
    seeds = {derived_seed(seed, *path) for seed in (0, 1, -(2**63)) for path in paths}
    assert len(seeds) == 3 * 900 and all(-(2**63) <= seed < 2**63 for seed in seeds)
    assert derived_seed(5) == derived_seed(5, 0, 0) == 5
    assert derived_seed(5, 1) == 5_396_413_017_056_747_871


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


def test_without_an_asr_model_the_score_is_the_plausibility(
    synthesizer: Synthesizer, prompt_file: Path
) -> None:
    """With and without guidance, candidates have the scores of the single results of their seeds."""
    guided = replace(synthesizer.sampling, guidance=2.0)
    result = synthesizer.synthesize(TEXT, prompt_file, PROMPT_TEXT, depth=2, sampling=guided)
    assert result.request is not None
    assert score(synthesizer, result) == plausibility(result)
    best = best_of_n(synthesizer, result.request, 2, candidate_depth=2)
    requests = [replace(result.request, seed=derived_seed(result.request.seed, n)) for n in range(2)]
    assert best.scores == tuple(score(synthesizer, synthesizer.start(one).collect()) for one in requests)


@pytest.fixture(scope="module")
def with_asr(synthesizer: Synthesizer) -> Synthesizer:
    torch.manual_seed(0)
    parts = synthesizer.tts, synthesizer.text_tokenizer, synthesizer.tokenizer
    return Synthesizer(*parts, asr_model=CatASR(asr_config.tiny()).eval())


@pytest.fixture(scope="module")
def long_result(result: SynthesisResult) -> SynthesisResult:
    """Return a result with more frames than its text has letters."""
    codes = torch.randint(32, (20, 2), generator=torch.Generator().manual_seed(0))
    return replace(result, codes=codes, audio=np.resize(result.audio, 20 * 1920))


def test_the_score_contains_the_intelligibility(with_asr: Synthesizer, long_result: SynthesisResult) -> None:
    result = long_result
    assert with_asr.asr_model is not None and result.request is not None
    (expected,) = ctc_score(with_asr.asr_model, [result.codes], TEXT)
    assert intelligibility(with_asr.asr_model, result) == expected != 0
    assert score(with_asr, result) == plausibility(result) + expected
    soundless = replace(result, request=replace(result.request, text=""))
    assert intelligibility(with_asr.asr_model, soundless) == 0
    crowded = replace(result, request=replace(result.request, text=TEXT * 9))
    assert intelligibility(with_asr.asr_model, crowded) == -math.inf
    assert score(with_asr, crowded) == plausibility(crowded) + MIN_CTC_SCORE


def test_is_acceptable(
    synthesizer: Synthesizer,
    with_asr: Synthesizer,
    long_result: SynthesisResult,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = long_result
    ended, cut = replace(result, stop_reason="end"), replace(result, stop_reason="limit")
    assert is_acceptable(synthesizer, ended) and not is_acceptable(synthesizer, cut)
    assert with_asr.asr_model is not None
    expected = intelligibility(with_asr.asr_model, result)
    for bar, enough in ((expected - 0.01, True), (expected + 0.01, False)):
        monkeypatch.setattr("inference.synthesis.best_of_n.MIN_INTELLIGIBILITY", bar)
        assert is_acceptable(with_asr, ended) == enough and not is_acceptable(with_asr, cut)


def test_voiced(voice: np.ndarray) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(24_000).astype(np.float32)
    assert voiced(voice, 24_000).mean() > 0.9
    assert not voiced(noise, 24_000).any() and not voiced(np.zeros(24_000, np.float32), 24_000).any()
    assert not voiced(np.concatenate([noise, 0.0005 * voice]), 24_000)[-25:].any()
    assert len(voiced(voice[:959], 24_000)) == 0
