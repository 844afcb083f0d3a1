"""Training of a decoder that ends in a vocoder."""

import json
import math
from dataclasses import replace
from pathlib import Path

import torch

from tests.helpers.interruption import assert_equal, saved_state, terminated_at
from tests.training.data.test_pitch_tracking import voice
from tokenizer import AudioTokenizer, TokenizerConfig
from tokenizer.config import VocoderConfig, tiny
from training.audio_tokenizer.joint_model import JointModel
from training.audio_tokenizer.recipes import TokenizerTraining
from training.audio_tokenizer.recipes import tiny as recipe
from training.train_tokenizer import train

VOCODER = VocoderConfig(bands=16)


def speaking() -> TokenizerConfig:
    *others, last = tiny().decoder
    return replace(tiny(), decoder=(*others, replace(last, output_dim=VOCODER.controls)), vocoder=VOCODER)


def options(run: Path, data: Path, steps: int) -> TokenizerTraining:
    made = recipe()
    return replace(
        made,
        run=run,
        data=data,
        steps=steps,
        trainable="decoder",
        adversarial_from=None,
        shape=replace(made.shape, model=speaking()),
        weights=replace(made.weights, semantic=0.0, pitch=10.0),
    )


def test_a_decoder_renders_the_true_pitch_while_it_learns_it() -> None:
    """A voice of 200 Hz has lines at its multiples, and none at those of 120 Hz, an untrained decoder's."""
    torch.manual_seed(0)
    tokenizer = AudioTokenizer(speaking())
    with torch.no_grad():
        tokenizer.decoder[-1].project_out.get_parameter("weight").zero_()
        audio = voice(torch.full((64,), math.log2(200 / 120)))
        latents = tokenizer.latents(audio)
        taught, loss = JointModel(tokenizer, None, supervise_pitch=True).synthesize(latents, audio)
        single, nothing = JointModel(tokenizer, None).synthesize(latents, audio)
    assert nothing is None and loss is not None
    assert abs(float(loss) - math.log2(200 / 120)) < 0.02
    for rebuilt, pitch, other in ((taught, 200, 120), (single, 120, 200)):
        middle = rebuilt[0, 2400:12_000] * torch.hann_window(9600)
        lines = torch.fft.rfft(middle).abs()  # 2.5 Hz each
        assert lines[round(pitch / 2.5)] > 3 * lines[round(other / 2.5)]


def test_pitch_and_sound_are_learnt(corpus: Path, tmp_path: Path) -> None:
    train(options(tmp_path, corpus, 12))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    mel = [line["train/loss/mel"] for line in lines if "train/loss/mel" in line]
    assert len(mel) == 12 and mel[-1] < mel[0]
    assert all(line["train/loss/pitch"] >= 0 for line in lines if "train/loss/mel" in line)
    assert AudioTokenizer.from_pretrained(tmp_path / "model").config.vocoder == VOCODER


def test_a_resumed_run_is_the_uninterrupted_one(corpus: Path, tmp_path: Path) -> None:
    train(options(tmp_path / "whole", corpus, 8))
    with terminated_at(5):
        train(options(tmp_path / "parts", corpus, 8))
    train(options(tmp_path / "parts", corpus, 8))
    assert_equal(saved_state(tmp_path / "whole"), saved_state(tmp_path / "parts"))
