"""Training of encoder and quantizer before there is a decoder."""

import json
from dataclasses import replace
from pathlib import Path

import torch

from tests.helpers.encoder_run import options
from tests.helpers.interruption import assert_equal, saved_state, terminated_at
from tests.training.audio_tokenizer.initialization.test_filter_bank import filter_bank_config
from tokenizer import AudioTokenizer
from training.audio_tokenizer.recipes import TokenizerTraining, tiny
from training.train_tokenizer import train


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert not any("mel" in name for line in lines for name in line)
    return [line["train/loss/spectral"] for line in lines if "train/loss/spectral" in line]


def test_the_spectra_are_learnt_and_the_decoder_is_left_alone(
    corpus: Path, codec: Path, tmp_path: Path
) -> None:
    before = AudioTokenizer.from_pretrained(codec).state_dict()
    after = train(options(tmp_path, corpus, init=codec, steps=12)).state_dict()
    for name, weight in before.items():
        assert torch.equal(after[name], weight) == name.startswith("decoder."), name
    found = losses(tmp_path)
    assert len(found) == 12 and found[-1] < 0.8 * found[0]
    assert not (tmp_path / "samples").exists()


def test_validation_has_spectra(corpus: Path, tmp_path: Path) -> None:
    monitor = replace(tiny().monitor, validation=corpus, validation_clips=2)
    train(options(tmp_path, corpus, steps=1, monitor=monitor))
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < line["validation/loss/spectral"] < 4


def test_a_resumed_run_is_the_uninterrupted_one(corpus: Path, tmp_path: Path) -> None:
    train(options(tmp_path / "whole", corpus, steps=14, reset_dead_codes=True))
    with terminated_at(11):
        train(options(tmp_path / "parts", corpus, steps=14, reset_dead_codes=True))
    train(options(tmp_path / "parts", corpus, steps=14, reset_dead_codes=True))
    assert_equal(saved_state(tmp_path / "whole"), saved_state(tmp_path / "parts"))


def filter_bank_encoder(run: Path, corpus: Path, steps: int, **changed: object) -> TokenizerTraining:
    base = options(run, corpus, steps=steps)
    weights = replace(base.weights, pitch=3.0)
    shape = replace(base.shape, model=filter_bank_config())
    return replace(base, shape=shape, weights=weights, filter_bank=True, **changed)


def test_a_calculated_encoder_keeps_its_filter_bank_and_learns_behind_it(
    corpus: Path, tmp_path: Path
) -> None:
    first = train(filter_bank_encoder(tmp_path / "one", corpus, 1)).state_dict()
    later = train(filter_bank_encoder(tmp_path / "one", corpus, 4)).state_dict()
    held = tuple(f"encoder.{i}." for i in range(2))
    for name, weight in first.items():
        still = name.startswith(("decoder.", *held))
        assert torch.equal(later[name], weight) == still, name
    lines = (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["train/loss/pitch"] > 0 for line in lines if "train/loss/pitch" in line] == [
        True
    ] * 4
    again = filter_bank_encoder(tmp_path / "two", corpus, 2, init=tmp_path / "one" / "model")
    followed = train(again).state_dict()
    assert all(torch.equal(followed[name], later[name]) for name in first if name.startswith(held))


def test_a_calculated_encoder_predicts_spectra_better_than_a_random_one(corpus: Path, tmp_path: Path) -> None:
    train(filter_bank_encoder(tmp_path / "calculated", corpus, 1))
    train(options(tmp_path / "random", corpus, steps=1))
    assert losses(tmp_path / "calculated")[0] < 0.6 * losses(tmp_path / "random")[0]


def test_a_calculated_run_that_was_stopped_is_the_uninterrupted_one(corpus: Path, tmp_path: Path) -> None:
    train(filter_bank_encoder(tmp_path / "whole", corpus, 8))
    with terminated_at(5):
        train(filter_bank_encoder(tmp_path / "parts", corpus, 8))
    train(filter_bank_encoder(tmp_path / "parts", corpus, 8))
    assert_equal(saved_state(tmp_path / "whole"), saved_state(tmp_path / "parts"))
