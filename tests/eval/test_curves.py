"""Pictures of training runs."""

import json
from pathlib import Path

import numpy as np
import pytest

from eval import curves


def write_run(folder: Path, lines: list[dict]) -> Path:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_the_running_mean_starts_with_what_there_is() -> None:
    np.testing.assert_allclose(curves.running_mean(np.array([4.0, 2.0, 0.0, 6.0]), 2), [4.0, 3.0, 1.0, 3.0])


def test_a_curve_holds_the_steps_that_logged_its_key(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [{"step": 1, "a": 3.0}, {"step": 2, "b": 1.0}, {"step": 3, "a": 2.0}])
    steps, values = curves.read_curve(run, "a")
    assert (steps.tolist(), values.tolist()) == ([1, 3], [3.0, 2.0])


def test_a_picture_is_drawn_and_mistakes_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    run = write_run(tmp_path / "run", [{"step": step, "a": 1.0 / step} for step in range(1, 9)])
    out = tmp_path / "curves.png"
    assert curves.main([str(out), "--runs", str(run), "--keys", "a"]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert curves.main([str(out), "--runs", str(run), "--keys", "c"]) == 2
    assert "c: logged by none of the runs" in capsys.readouterr().err
    assert curves.main([str(out), "--runs", str(tmp_path), "--keys", "a"]) == 2
    assert "holds no metrics.jsonl" in capsys.readouterr().err
