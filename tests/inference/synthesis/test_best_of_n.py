"""Drafts: their seeds, how they are ranked, and the best one mastered."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cat_tts import SamplingOptions
from cat_tts.asr import config as asr_config
from cat_tts.asr.ctc_score import UNHEARD, heard
from cat_tts.asr.model import CatASR
from cat_tts.generation.text_likelihood import text_evidence
from inference import Synthesizer, Take
from inference.engine.seeds import derived_seed
from inference.synthesis.best_of_n import (
    best_of,
    expected_frames,
    heard_of,
    plausibility,
    satisfies,
    score,
    voiced,
)

WORDS, TEXT = "What the recording says.", "Dogs sleep."


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture(scope="module")
def take(synthesizer: Synthesizer, prompt_file: Path) -> Take:
    """Of 11 characters, said in the voice of 15 frames for 24 characters, 21.6 frames as usual."""
    return synthesizer.take(TEXT, prompt_file, WORDS, depth=2)


def test_the_best_draft_is_mastered(synthesizer: Synthesizer, prompt_file: Path) -> None:
    """Whatever the scorer likes; its codes stay, and deeper ones are added."""
    request = synthesizer.request(TEXT, prompt_file, WORDS, depth=4, seed=9)
    drafts = [synthesizer.take(TEXT, prompt_file, WORDS, depth=2, seed=derived_seed(9, n)) for n in range(3)]
    for liked in range(3):
        choice = best_of(
            synthesizer,
            request,
            3,
            draft_depth=2,
            scorer=lambda take, best=liked: take.seed == drafts[best].seed,
        )
        assert choice.scores == tuple(n == liked for n in range(3))
        assert choice.take.depth == 4 and choice.take.seed == drafts[liked].seed
        assert choice.take.stop_reason == drafts[liked].stop_reason
        assert torch.equal(choice.take.codes[:, :2], drafts[liked].codes)
    assert best_of(synthesizer, request, 3, draft_depth=2, scorer=lambda take: 0.0).take.seed == 9


def test_a_single_draft_at_full_depth_is_the_take(synthesizer: Synthesizer, prompt_file: Path) -> None:
    request = synthesizer.request(TEXT, prompt_file, WORDS, seed=9)
    choice = best_of(synthesizer, request, 1, draft_depth=99)
    assert np.array_equal(choice.take.audio, synthesizer.take(TEXT, prompt_file, WORDS, seed=9).audio)
    assert choice.scores == (plausibility(choice.take),)


def test_drafts_are_let_go_where_nobody_waits_for_them(synthesizer: Synthesizer, prompt_file: Path) -> None:
    def give_up(frames: int) -> None:
        told.append(frames)
        if frames == 3:
            raise KeyboardInterrupt

    told: list[int] = []
    request = synthesizer.request("The young dog sleeps.", prompt_file, WORDS, seed=9)
    with pytest.raises(KeyboardInterrupt):
        best_of(synthesizer, request, 10, on_frame=give_up)
    assert told == [1, 2, 3] and not synthesizer.engine(8).busy
    told.clear()
    best_of(synthesizer, request, 3, on_frame=told.append)
    assert told == list(range(1, 1 + told[-1])) and synthesizer.engine(3) is synthesizer.engine(3)


def test_refusals(synthesizer: Synthesizer, prompt_file: Path) -> None:
    request = synthesizer.request(TEXT, prompt_file, WORDS)
    with pytest.raises(ValueError, match="the best of 0 drafts: ask for at least 1"):
        best_of(synthesizer, request, 0)
    with pytest.raises(ValueError, match="drafts of depth 0: choose 1 or more"):
        best_of(synthesizer, request, 2, draft_depth=0)


def test_derived_seeds() -> None:
    """All different, fit for any generator, and the same on every machine."""
    paths = [(n, m) for n in range(30) for m in range(30)]
    seeds = {derived_seed(seed, *path) for seed in (0, 1, -(2**63)) for path in paths}
    assert len(seeds) == 3 * 900 and all(-(2**63) <= seed < 2**63 for seed in seeds)
    assert derived_seed(5) == derived_seed(5, 0, 0) == 5
    assert derived_seed(5, 1) == 5_396_413_017_056_747_871


def test_plausibility_by_hand(take: Take) -> None:
    """At the pace of the prompt the text takes 9.9 * 15 / 21.6 = 6.875 frames."""
    assert expected_frames(take) == pytest.approx(6.875)

    def score(frames: int, stop_reason: str, sound: str) -> float:
        time = np.arange(frames * 1920) / 24_000
        tone, silence = 0.1 * np.sin(2 * np.pi * 150 * time), np.zeros(len(time))
        audio = {"voice": tone, "silence": silence, "quarter": np.where(time < time[-1] / 4, tone, 0)}[sound]
        codes = torch.zeros(frames, 2, dtype=torch.long)
        changed = replace(take, audio=audio.astype(np.float32), codes=codes, stop_reason=stop_reason)
        return plausibility(changed)

    assert score(8, "end", "voice") == pytest.approx(2 - math.log(8 / 6.875))
    assert score(8, "limit", "voice") == pytest.approx(1 - math.log(8 / 6.875))
    assert score(4, "end", "silence") == pytest.approx(1 - math.log(6.875 / 4))
    assert score(8, "silence", "quarter") == pytest.approx(0.5 - math.log(8 / 6.875))
    assert plausibility(replace(take, codes=take.codes[:0])) == -math.inf
    with pytest.raises(ValueError, match="does not say what it answers"):
        plausibility(replace(take, request=None))


def test_a_guided_model_also_hears_whether_it_says_its_text(
    synthesizer: Synthesizer, prompt_file: Path
) -> None:
    """The same codes are answers to one request or to another, of which one is the likelier."""
    guided = replace(synthesizer.sampling, guidance=2.0)
    take = synthesizer.take(TEXT, prompt_file, WORDS, depth=2, sampling=guided)
    assert take.request is not None
    evidence = text_evidence(synthesizer.tts, synthesizer.job(take.request).continuation, take.codes)
    assert evidence != 0 and score(synthesizer, take) == plausibility(take) + evidence
    other = replace(take, request=replace(take.request, text="Cats bark."))
    assert score(synthesizer, other) - plausibility(other) != evidence
    unguided = replace(take, request=replace(take.request, sampling=SamplingOptions()))
    assert score(synthesizer, unguided) == plausibility(unguided) == plausibility(take)
    best = best_of(synthesizer, take.request, 2, draft_depth=2)
    takes = [replace(take.request, seed=derived_seed(take.request.seed, n)) for n in range(2)]
    assert best.scores == tuple(score(synthesizer, synthesizer.start(one).collect()) for one in takes)


@pytest.fixture(scope="module")
def listening(synthesizer: Synthesizer) -> Synthesizer:
    torch.manual_seed(0)
    parts = synthesizer.tts, synthesizer.text, synthesizer.tokenizer
    return Synthesizer(*parts, listener=CatASR(asr_config.tiny()).eval())


@pytest.fixture(scope="module")
def long_take(take: Take) -> Take:
    """With more frames than its text has letters."""
    codes = torch.randint(32, (20, 2), generator=torch.Generator().manual_seed(0))
    return replace(take, codes=codes, audio=np.resize(take.audio, 20 * 1920))


def test_a_model_that_brings_a_listener_is_heard(listening: Synthesizer, long_take: Take) -> None:
    take = long_take
    assert listening.listener is not None and take.request is not None
    (plainly,) = heard(listening.listener, [take.codes], TEXT)
    assert heard_of(listening.listener, take) == plainly != 0
    assert score(listening, take) == plausibility(take) + plainly
    soundless = replace(take, request=replace(take.request, text=""))
    assert heard_of(listening.listener, soundless) == 0
    crowded = replace(take, request=replace(take.request, text=TEXT * 9))
    assert heard_of(listening.listener, crowded) == -math.inf
    assert score(listening, crowded) == plausibility(crowded) + UNHEARD


def test_what_need_not_be_made_again(
    synthesizer: Synthesizer, listening: Synthesizer, long_take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = long_take
    ended, cut = replace(take, stop_reason="end"), replace(take, stop_reason="limit")
    assert satisfies(synthesizer, ended) and not satisfies(synthesizer, cut)
    assert listening.listener is not None
    plainly = heard_of(listening.listener, take)
    for bar, enough in ((plainly - 0.01, True), (plainly + 0.01, False)):
        monkeypatch.setattr("inference.synthesis.best_of_n.UNDERSTOOD", bar)
        assert satisfies(listening, ended) == enough and not satisfies(listening, cut)


def test_voiced(voice: np.ndarray) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(24_000).astype(np.float32)
    assert voiced(voice, 24_000).mean() > 0.9
    assert not voiced(noise, 24_000).any() and not voiced(np.zeros(24_000, np.float32), 24_000).any()
    assert not voiced(np.concatenate([noise, 0.0005 * voice]), 24_000)[-25:].any()
    assert len(voiced(voice[:959], 24_000)) == 0
