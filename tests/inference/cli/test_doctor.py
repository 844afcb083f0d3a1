"""`cat-tts doctor` on the shipped model, healthy and with planted faults."""

import shutil
from pathlib import Path

import pytest
import torch

from inference.cli.doctor import Doctor, doctor
from inference.synthesis.loading import DEFAULT_MODEL
from tokenizer import AudioTokenizer


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the shipped model, to be damaged."""
    return shutil.copytree(DEFAULT_MODEL, tmp_path / "model")


def broken(options: Doctor, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run the command, which must fail, and return the lines about what is broken."""
    with pytest.raises(SystemExit) as ended:
        doctor(options)
    assert ended.value.code == 1
    out = capsys.readouterr().out
    assert "all is well" not in out
    return [line for line in out.splitlines() if line.startswith("BROKEN")]


def test_the_shipped_model_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    doctor(Doctor(device="cpu"))
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "all is well" and "BROKEN" not in out
    assert sum(line.startswith("ok: ") for line in out.splitlines()) == 7
    assert "the recognizer understands the speech" in out


def test_a_missing_file_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "tts" / "phonemes.json").unlink()
    files, load = broken(Doctor(model=str(copy), device="cpu"), capsys)
    assert "tts/phonemes.json is missing" in files and "phonemes.json" in load


def test_damaged_weights_are_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One bit is enough, and the rest of the checks still run."""
    weights = copy / "asr" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1000] ^= 1
    weights.write_bytes(data)
    (files,) = broken(Doctor(model=str(copy), device="cpu"), capsys)
    assert "asr/model.safetensors is damaged" in files


def test_damaged_weights_are_noticed_without_checksums(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Speech of a broken model is not understood."""
    (copy / "checksums.json").unlink()
    weights = copy / "tts" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    start = len(data) // 2
    data[start:] = bytes(len(data) - start)  # as a download that was cut off
    weights.write_bytes(data)
    lines = broken(Doctor(model=str(copy), device="cpu"), capsys)
    assert any("listen" in line and "attempts at a short text failed" in line for line in lines)


def test_another_tokenizer_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One of the same shape: its codes mean other sounds."""
    other = AudioTokenizer.from_pretrained(DEFAULT_MODEL / "tokenizer")
    with torch.no_grad():
        for weight in other.quantizer.parameters():
            weight.mul_(1.5)
    other.save_pretrained(tmp_path / "other")
    (load,) = broken(Doctor(tokenizer=str(tmp_path / "other"), device="cpu"), capsys)
    assert f"{tmp_path / 'other'}: is tokenizer" in load and "the model speaks codes of" in load
