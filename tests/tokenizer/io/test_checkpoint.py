"""Folders that hold no usable tokenizer: one line says what is wrong."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from tokenizer.config import tiny
from tokenizer.model import AudioTokenizer


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def cut_config(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text()[:40])


def list_config(folder: Path) -> None:
    (folder / "config.json").write_text("[1]")


def misspelt_config(folder: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    raw["quantizer"]["codebok_size"] = raw["quantizer"].pop("codebook_size")
    (folder / "config.json").write_text(json.dumps(raw))


def misfit_config(folder: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    raw["code_dim"] = 25
    (folder / "config.json").write_text(json.dumps(raw))


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps({"weight": [1.0]}))


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def other_shape(folder: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    raw["quantizer"]["codebook_size"] = 64
    (folder / "config.json").write_text(json.dumps(raw))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (without_config, "config.json: missing; this folder does not hold a model"),
        (cut_config, "config.json: not JSON"),
        (list_config, "config.json: holds list, not an object"),
        (misspelt_config, "config.json: quantizer.codebok_size: "),
        (misfit_config, "config.json: .*joint 4: 24 features meet 25"),
        (without_weights, "model.safetensors: weights are missing"),
        (pickled_weights, "model.safetensors: not a safetensors file"),
        (other_shape, "the weights do not fit config.json: size mismatch for quantizer.layers.0.codebook"),
        (cut_weights, "model.safetensors: not a safetensors file"),
    ],
)
def test_broken_folder(harm: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    AudioTokenizer(tiny()).save_pretrained(tmp_path)
    harm(tmp_path)
    with pytest.raises(ValueError, match=message):
        AudioTokenizer.from_pretrained(tmp_path)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere: no such model folder; give a folder or a hub id"):
        AudioTokenizer.from_pretrained(tmp_path / "nowhere")
