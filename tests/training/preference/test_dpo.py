"""Candidates that can be understood become likelier than those that cannot."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cat_tts import CatTTS
from cat_tts.asr import config as asr_config
from cat_tts.asr.ctc_score import ctc_score
from cat_tts.asr.model import CatASR
from cat_tts.text.tokenizers import SentencePieceText
from training.data.code_shards import read_codes
from training.preference.candidates import CandidateOptions, Comparison, generate_candidates, read_comparisons
from training.preference.dpo import DpoOptions, Pair, frame_scores, main, rank_pairs, sequences, train_dpo

pytestmark = pytest.mark.usefixtures("datasets_cache")


@pytest.fixture(scope="module")
def asr(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CAT-ASR with random weights, large enough that its scores differ."""
    torch.manual_seed(0)
    folder, model = tmp_path_factory.mktemp("asr"), CatASR(asr_config.tiny())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.1)
    model.save_pretrained(folder, SentencePieceText(bundle / "tts" / "text.model"))
    return folder


@pytest.fixture(scope="module")
def candidates(
    bundle: Path, codes: Path, datasets_cache: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("candidates")
    generate_candidates(CandidateOptions(out=out, model=bundle, codes=codes, comparisons=30, candidates=4))
    return out


def options(run: Path, bundle: Path, codes: Path, candidates: Path, asr: Path) -> DpoOptions:
    return DpoOptions(
        run=run,
        candidates=candidates,
        codes=codes,
        tts=bundle / "tts",
        asr=asr,
        steps=40,
        pairs_per_step=4,
        learning_rate=2e-4,
        margin=0.0,
        validation=5,
    )


def test_the_best_is_paired_with_the_worst(asr: Path) -> None:
    asr_model, _ = CatASR.from_pretrained(asr)
    draw = np.random.default_rng(0)
    codes = [draw.integers(32, size=(n, 3)).astype(np.int16) for n in (30, 31, 32, 33, 34)]
    text = "this is what somebody may say in a while"
    comparison = Comparison(0, text, 3, codes, [True, True, True, True, False])
    scores = ctc_score(asr_model, [torch.from_numpy(one) for one in codes], text)
    scores[4] = -9.0  # it did not end
    order = sorted(range(5), key=lambda i: -scores[i])
    assert order[-1] == 4 and min(scores[:4]) > -9.0
    assert [pair.candidates for pair in rank_pairs(asr_model, comparison, 0.0)] == [
        (order[0], order[4]),
        (order[1], order[3]),
    ]
    margin = scores[order[1]] - scores[order[3]]
    assert [pair.candidates for pair in rank_pairs(asr_model, comparison, margin + 1e-4)] == [
        (order[0], order[4])
    ]
    assert rank_pairs(asr_model, comparison._replace(text=""), 0.0) == []


def test_a_score_is_of_the_candidate_s_frames(bundle: Path, codes: Path) -> None:
    """By hand, from the logits of one sequence: the first codes and decision of each frame, and its end."""
    tts, text_tokenizer = CatTTS.from_pretrained(bundle / "tts")
    rows, draw = read_codes(codes), np.random.default_rng(0)
    spoken = [draw.integers(32, size=(n, 4)).astype(np.int16) for n in (5, 9)]
    pair = Pair(Comparison(3, "The old fox.", 4, spoken, [True, False]), (0, 1))
    batch = sequences(tts, text_tokenizer, rows, [pair])
    scores, cross_entropy = frame_scores(tts, batch, codebooks=2)
    for i, frames in enumerate((5, 9)):
        single = [part[i : i + 1] for part in batch]
        wanted = single[1][0, :, 0] >= 0
        assert int(wanted.sum()) == frames + (i == 0)
        states = tts.states(tts.embed(single[0], 4), positions=single[2])[0, wanted]
        targets = single[1][0, wanted]
        decisions, logits = tts.frame_logits(states, targets)
        total = torch.zeros(())
        for frame, target in enumerate(targets):
            ends = target[0] == tts.config.tokens.audio_end
            total = total + decisions[frame].log_softmax(-1)[int(ends)]
            if not ends:
                total = total + sum(logits[frame, k].log_softmax(-1)[target[1 + k]] for k in range(2))
        torch.testing.assert_close(scores[i], total / len(targets))
        if i == 0:
            expected = F.cross_entropy(logits[:5, :4].flatten(0, 1), targets[:5, 1:5].flatten())
            torch.testing.assert_close(cross_entropy, expected)


def test_chosen_candidates_become_likelier(
    bundle: Path, codes: Path, candidates: Path, asr: Path, tmp_path: Path
) -> None:
    arguments = options(tmp_path, bundle, codes, candidates, asr)
    model = train_dpo(arguments)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "train/preference" in line]
    assert steps[0]["train/preference"] == pytest.approx(np.log(2), rel=1e-3)
    assert np.mean([line["train/preference"] for line in steps[-8:]]) < 0.5
    assert lines[-1].keys() == {
        "step",
        *(f"validation/{name}" for name in ("preference", "cross_entropy", "accuracy")),
    }
    loaded, _ = CatTTS.from_pretrained(tmp_path / "model")
    first, _ = CatTTS.from_pretrained(bundle / "tts")
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])
    assert not torch.equal(loaded.text_embedding.weight, first.text_embedding.weight)


def test_a_margin_that_no_pair_reaches(
    bundle: Path, codes: Path, candidates: Path, asr: Path, tmp_path: Path
) -> None:
    arguments = replace(options(tmp_path / "run", bundle, codes, candidates, asr), margin=100.0)
    with pytest.raises(ValueError, match="0 pairs to train on and 0 held out: generate more candidates"):
        train_dpo(arguments)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="holds no candidates"):
        parts = {"--candidates": tmp_path, "--codes": codes, "--tts": bundle / "tts", "--asr": asr}
        main([str(tmp_path), *(str(one) for option in parts.items() for one in option)])
    assert len(list(read_comparisons(candidates))) == 30
