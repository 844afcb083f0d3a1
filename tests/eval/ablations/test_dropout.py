import json
from pathlib import Path

import numpy as np
import pytest

from eval.ablations.dropout import difference, main, summary

pytestmark = pytest.mark.usefixtures("datasets_cache")


def sums(losses: list[list[float]]) -> np.ndarray:
    """Two depths, two utterances of 3 and 1 codes a codebook: losses by depth and utterance, a code."""
    counts = np.array([3.0, 1.0])[None, :, None] * np.array([[1, 0], [1, 1]])[:, None, :]
    values = np.array(losses)[:, :, None] * counts
    return np.stack([values, counts], -1)


def test_losses_are_means_over_codes() -> None:
    made = summary(sums([[1.0, 5.0], [2.0, 4.0]]))
    assert made["loss"] == [2.0, 2.5]
    assert made["layers"] == [[2.0], [2.5, 2.5]]


def test_differences_are_paired() -> None:
    one, other = sums([[1.0, 5.0], [2.0, 4.0]]), sums([[0.5, 4.5], [1.0, 5.0]])
    (same, certain), (mean, error) = difference(one, other)
    assert same == pytest.approx(0.5) and certain == pytest.approx(0)
    # 3 x 2 codes are 1 dearer, 1 x 2 codes 1 cheaper: 4 over 8, residuals of 3 and -3
    assert mean == pytest.approx(0.5) and error == pytest.approx(np.std([3, -3], ddof=1) * np.sqrt(2) / 8)


@pytest.mark.slow
def test_a_sweep_trains_measures_and_draws(codes: Path, tmp_path: Path) -> None:
    out, figure = tmp_path / "sweep.json", tmp_path / "sweep.png"
    argv = [tmp_path / "runs", "--codes", codes, "--shape", "tiny", "--steps", 3, "--rows", 200]
    argv += ["--p", "0,1", "--deep-part", 0.25, "--validation", 5]
    argv = [str(part) for part in argv]
    assert main([*argv, "--only", "1"]) == 0
    trained = (tmp_path / "runs" / "p1" / "model" / "model.safetensors").stat().st_mtime_ns
    assert main([*argv, "--out", str(out), "--figure", str(figure)]) == 0
    assert (tmp_path / "runs" / "p1" / "model" / "model.safetensors").stat().st_mtime_ns == trained
    result = json.loads(out.read_text())
    assert list(result["runs"]) == ["p = 0", "p = 1", "p = 1, deep 0.25"]
    assert [len(row) for row in result["runs"]["p = 0"]["layers"]] == [1, 2, 3, 4, 5, 6]
    assert result["runs"]["p = 1"]["difference"] == [[0.0, 0.0]] * 6
    assert result["command"].startswith("python -m eval.ablations.dropout ")
    assert [len(table["rows"]) for table in result["tables"]] == [6, 6, 6]
    assert figure.stat().st_size > 10_000


def test_a_mistake_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(tmp_path), "--codes", str(tmp_path), "--out", str(tmp_path / "no" / "x.json")]) == 2
    assert capsys.readouterr().err.startswith("eval.ablations.dropout: --out ")
