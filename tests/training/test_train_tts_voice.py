"""Trainings of the TTS model with voice vectors, end to end."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cat_tts import CatTTS
from cat_tts.speakers import voice_vector
from cat_tts.speakers.voice_vector import VoiceVectorEncoder
from tests.helpers.interruption import assert_equal, saved_state, terminated_at
from tests.training.test_train_tts import metrics, options
from training import preflight
from training.train_tts import main, train
from training.tts.setup import build

pytestmark = pytest.mark.usefixtures("datasets_cache")


def save_encoder(folder: Path, seed: int = 0, **changes: int) -> Path:
    torch.manual_seed(seed)
    VoiceVectorEncoder(replace(voice_vector.tiny(), **changes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def uninterrupted(
    codes: Path, encoder: Path, datasets_cache: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = tmp_path_factory.mktemp("tts") / "run"
    train(options(run, codes, speaker_encoder=str(encoder)))
    return run


def test_a_run_learns_to_read_voice_vectors(codes: Path, uninterrupted: Path, tmp_path: Path) -> None:
    model, _ = CatTTS.from_pretrained(uninterrupted / "model")
    assert model.config.speaker_dim == 8 and model.speaker_projection is not None
    assert model.speaker_projection.weight.abs().max() > 1e-3
    train(options(tmp_path, codes))
    without, voiced = metrics(tmp_path), metrics(uninterrupted)
    losses = [name for name in without[0] if name.startswith(("train/loss", "train/layer"))]
    assert [voiced[0][name] for name in losses] == [without[0][name] for name in losses], "not yet read"
    assert voiced[-2]["train/loss/codes"] != without[-2]["train/loss/codes"]
    assert CatTTS.from_pretrained(tmp_path / "model")[0].config.speaker_dim is None


@pytest.mark.parametrize("step", [1, 4])
def test_a_terminated_run_continues_as_if_nothing_had_been(
    codes: Path, encoder: Path, uninterrupted: Path, tmp_path: Path, step: int
) -> None:
    with terminated_at(step):
        train(options(tmp_path, codes, speaker_encoder=str(encoder)))
    train(options(tmp_path, codes, speaker_encoder=str(encoder)))
    assert_equal(saved_state(tmp_path), saved_state(uninterrupted))
    for name in ("model.safetensors", "config.json", "text.model"):
        assert (tmp_path / "model" / name).read_bytes() == (uninterrupted / "model" / name).read_bytes()
    assert metrics(tmp_path)[-1] == metrics(uninterrupted)[-1]


def test_a_trained_model_begins_where_it_was_and_learns_to(
    codes: Path, encoder: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    train(options(tmp_path / "plain", codes, steps=2))
    plain = tmp_path / "plain" / "model"
    setup = build(options(tmp_path / "next", codes, init=str(plain), speaker_encoder=str(encoder)))
    found, wanted = setup.model.state_dict(), CatTTS.from_pretrained(plain)[0].state_dict()
    assert not found.pop("speaker_projection.weight").any()
    assert_equal(dict(found), dict(wanted))
    assert setup.speaker_encoder is not None and not setup.speaker_encoder.training
    assert not any(weight.requires_grad for weight in setup.speaker_encoder.parameters())
    kept = build(
        options(tmp_path / "more", codes, init=str(uninterrupted / "model"), speaker_encoder=str(encoder))
    )
    assert kept.model.state_dict()["speaker_projection.weight"].any()


def test_samples_are_spoken_with_the_vector_of_their_prompt(
    codes: Path, codec: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = []
    monkeypatch.setattr(
        "training.tts.samples.speak",
        lambda *_, speaker, depth, **__: vectors.append(speaker) or torch.zeros(0, depth).long(),
    )
    every = {"monitor": {"samples_every": 2}, "tokenizer": str(codec), "speaker_encoder": str(encoder)}
    setup = build(options(tmp_path, codes, steps=2, **every))
    assert setup.samples is not None
    setup.samples.write(2, setup.result(tmp_path), setup.text_tokenizer)
    loaded, prompts = (
        VoiceVectorEncoder.from_pretrained(encoder),
        [one.prompt for one in setup.samples.samples],
    )
    assert len(vectors) == 4
    for i, vector in enumerate(vectors):
        torch.testing.assert_close(vector, loaded(prompts[i // 2][None]))


def test_the_run_records_its_encoder(encoder: Path, uninterrupted: Path) -> None:
    settings = json.loads((uninterrupted / "run.json").read_text())
    assert settings["speaker_encoder"] == str(encoder) and len(settings["speaker_encoder_sha256"]) == 64
    assert settings["dropout"]["speaker_dropout"] == 0.1


def test_mistakes_end_with_one_line(
    codes: Path,
    codec: Path,
    encoder: Path,
    uninterrupted: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, other = tmp_path / "run", save_encoder(tmp_path / "other", seed=1)
    larger = save_encoder(tmp_path / "larger", codebook_size=64)
    wider = save_encoder(tmp_path / "wider", vector_dim=9)
    trained = uninterrupted / "model"
    for arguments, complaint in (
        (["--speaker-encoder", tmp_path / "none"], "none: no such model folder"),
        (["--speaker-encoder", tmp_path], "config.json: missing; this folder does not hold a model"),
        (["--speaker-encoder", codec], "config.json: "),
        (["--speaker-encoder", trained], "config.json: "),
        (["--speaker-encoder", larger], "reads codebooks of 64 codes, but these have 32"),
        (["--init", trained], "voice vectors of 8 numbers: name their encoder with --speaker-encoder"),
        (["--init", trained, "--speaker-encoder", wider], "8 numbers, those of this speaker_encoder have 9"),
        (["--run", uninterrupted, "--speaker-encoder", other], "speaker_encoder_sha256 is "),
        (["--run", uninterrupted], "speaker_encoder_sha256 is "),
    ):
        with pytest.raises(SystemExit) as ended:
            main([str(part) for part in ["tiny", "--codes", codes, "--run", run, *arguments]])
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("error: ") and complaint in line
    assert not run.exists()


def test_preflight_counts_the_projection(codes: Path, codec: Path, encoder: Path, tmp_path: Path) -> None:
    few = ["--measured-steps", 1, "--batches.rows", 100, "--overfit-steps", 1, "--tokenizer", codec]
    parameters = []
    for name, more in (("without", []), ("with", ["--speaker-encoder", encoder])):
        arguments = ["tiny", "--codes", codes, "--run", tmp_path / name, *few, *more]
        assert preflight.main([str(part) for part in arguments]) == 1
        report = json.loads((tmp_path / name / "preflight" / "report.json").read_text())
        parameters.append(report["cost"]["trained"])
    assert parameters[1] - parameters[0] == 8 * 32
