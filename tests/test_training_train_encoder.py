"""Training of encoder and quantizer before there is a decoder."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from encoder_run import options
from interruption import assert_equal, saved_state, terminated_at

from tokenizer import AudioTokenizer
from training.recipes import tiny
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


def test_validation_hears_spectra(corpus: Path, tmp_path: Path) -> None:
    monitor = replace(tiny().monitor, validation=corpus, validation_clips=2)
    train(options(tmp_path, corpus, steps=1, monitor=monitor))
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < line["validation/loss/spectral"] < 4


def test_a_resumed_run_is_the_uninterrupted_one(corpus: Path, tmp_path: Path) -> None:
    train(options(tmp_path / "whole", corpus, steps=14, revive=True))
    with terminated_at(11):
        train(options(tmp_path / "parts", corpus, steps=14, revive=True))
    train(options(tmp_path / "parts", corpus, steps=14, revive=True))
    assert_equal(saved_state(tmp_path / "whole"), saved_state(tmp_path / "parts"))
