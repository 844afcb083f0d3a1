"""What 8-bit weights cost, on a tiny model."""

import json
from pathlib import Path

import pytest
import torch

from cat_tts.generation.int8_linear import round_to_int8
from eval.ablations import int8
from inference import Synthesizer


def test_only_matrices_that_make_frames_are_rounded(bundle: Path) -> None:
    tts = Synthesizer.from_pretrained(bundle, device="cpu").tts
    before = {name: value.clone() for name, value in tts.state_dict().items()}
    int8.round_weights(tts)
    for name, value in tts.state_dict().items():
        matrix = value.ndim == 2 and "embedding" not in name
        expected = round_to_int8(before[name]) if matrix else before[name]
        assert torch.equal(value, expected), name
        changes = matrix and before[name].any()
        assert torch.equal(value, before[name]) is not bool(changes), name


def test_command(bundle: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, prompt_file: Path) -> None:
    meta, out = tmp_path / "meta.lst", tmp_path / "int8.json"
    meta.write_text(f"a|the red fox|{prompt_file}|the old dog\n")
    assert int8.main(["--model", str(bundle), "--meta", str(meta), "--out", str(out)]) == 0
    means = json.loads(out.read_text())["means"]
    assert 0 < abs(means["int8"]["codes"] - means["float"]["codes"]) < 0.1
    assert "| float |" in capsys.readouterr().out
    assert int8.main(["--model", str(tmp_path / "none"), "--meta", str(meta)]) == 2
    assert "no such" in capsys.readouterr().err
