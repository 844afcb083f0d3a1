"""Pictures of takes."""

from pathlib import Path

import pytest

from eval.spectrograms import main

pytest.importorskip("matplotlib")


def test_a_panel_for_every_file(prompt_file: Path, tmp_path: Path) -> None:
    from matplotlib import image

    heights = []
    for count in (1, 3):
        out = tmp_path / f"{count}.png"
        assert main([str(out), *(f"take {i}={prompt_file}" for i in range(count))]) == 0
        heights.append(image.imread(out).shape[0])
    assert heights[1] == pytest.approx(3 * heights[0], abs=3)


def test_mistakes_end_with_one_line(
    prompt_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "a.png"), f"x={tmp_path / 'none.wav'}"]) == 2
    assert "none.wav" in capsys.readouterr().err
    assert main([str(tmp_path / "no" / "a.png"), f"x={prompt_file}"]) == 2
    assert "create it first" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(tmp_path / "a.png"), str(prompt_file)])
