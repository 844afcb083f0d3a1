import json
import shutil
from pathlib import Path

import pytest
import torch

from tokenizer import AudioTokenizer, load_audio
from training.data.code_shards import read_codes
from training.preflight import agreement, main

pytestmark = pytest.mark.usefixtures("datasets_cache")


def arguments(run: Path, codes: Path, codec: Path, *more: object) -> list[str]:
    few = ["--steps", 5, "--measured-steps", 1, "--batches.rows", 100]
    return [str(one) for one in ["tiny", "--codes", codes, "--run", run, "--tokenizer", codec, *few, *more]]


@pytest.fixture(scope="module")
def report_folder(
    codes: Path, codec: Path, datasets_cache: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = tmp_path_factory.mktemp("preflight") / "run"
    assert main(arguments(run, codes, codec)) == 0
    return run / "preflight"


def test_the_model_reproduces_what_it_was_trained_on(report_folder: Path) -> None:
    report = json.loads((report_folder / "report.json").read_text())
    assert len(report["recalled"]) == 2 and min(report["recalled"]) >= 0.95
    assert report["overfit_loss"] < 0.5 and report["overfit_steps"] <= 600


def test_written_files_are_the_decoded_utterances(report_folder: Path, codes: Path, codec: Path) -> None:
    tokenizer, rows = AudioTokenizer.from_pretrained(codec), read_codes(codes)
    written = [load_audio(report_folder / f"{i}_shard.wav") for i in range(2)]
    decoded = [tokenizer.decode(torch.as_tensor(row["codes"]).long()[None])[0].clamp(-1, 1) for row in rows]
    for audio in written:
        assert any(len(one) == len(audio) and (one - audio).abs().max() < 1e-4 for one in decoded)
    assert all(len(load_audio(report_folder / f"{i}_model.wav")) >= 0.9 * len(written[i]) for i in range(2))


def test_memory_adds_up(report_folder: Path) -> None:
    cost = json.loads((report_folder / "report.json").read_text())["cost"]
    parts, size = cost["parts"], 4 * cost["parameters"]
    assert cost["trained"] == cost["parameters"]
    assert (parts["weights"], parts["gradients"], parts["optimizer"]) == (size, size, 2 * size)
    assert parts["activations"] > 100 * 32 * 4 * 10  # rows x width x bytes, for each of many products
    assert cost["rows_per_second"] > 0 and cost["seconds_per_step"] > 0


def test_another_codec_is_refused(
    codes: Path, codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = AudioTokenizer.from_pretrained(codec)
    with torch.no_grad():
        other.quantizer.layers[0].codebook.weight[0, 0] += 1
    other.save_pretrained(tmp_path / "other")
    assert main(arguments(tmp_path / "run", codes, tmp_path / "other")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the codes are of tokenizer ") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_utterances_that_are_not_reproduced_are_a_failure(
    codes: Path, codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path, codes, codec, "--overfit-steps", 2)) == 1
    assert capsys.readouterr().out.startswith("FAILED: utterances are not reproduced: ")
    shutil.rmtree(tmp_path / "preflight")


def test_agreement_by_hand() -> None:
    codes = torch.tensor([[1, 2], [3, 4], [5, 6]])
    assert agreement(codes, codes) == 1.0
    assert agreement(codes, codes[:2]) == pytest.approx(4 / 6)
    assert agreement(codes, torch.tensor([[1, 2], [3, 0], [5, 6], [7, 8]])) == pytest.approx(5 / 8)
    assert agreement(codes, codes[:0]) == 0.0
