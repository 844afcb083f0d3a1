import json
from pathlib import Path

import pytest
import torch

from cat_tts import CatTTS
from eval.speed import __main__ as speed
from eval.speed.generation import SIZES, frame_bytes


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All contenders make all frames, and the file says how long it took them."""
    out = tmp_path / "speed.json"
    argv = ["--device", "cpu", "--sizes", "tiny", "--batches", "2", "--depths", "3", "--rounds", "1"]
    argv += ["--voice-depths", "1", "--text", "Hi."]
    assert speed.main([*argv, "--out", str(out)]) == 0
    results = json.loads(out.read_text())
    (result,), (voice,) = results["generation"], results["voice"]
    names = {"published", "csm", "products", "ours", "sampled", "int8"}
    assert result["ms_per_frame"].keys() == names == result["speed_of_ours"].keys() | {"ours"}
    ratio = result["ms_per_frame"]["csm"] / result["ms_per_frame"]["ours"]
    assert result["speed_of_ours"]["csm"] == pytest.approx(ratio)
    table = capsys.readouterr().out.splitlines()
    assert voice["depth"] == 1 and 0 < voice["first_audio_seconds"] < voice["first_audio_seconds_cold"]
    assert voice["rtf"] > 0
    assert len(table) == 2 + len(names) + 1 + 3 and table[2].startswith("| tiny | 2 | 3 | published | ")


def test_frame_bytes_by_hand() -> None:
    """Of `small` as performance.md counts: 4 bytes for every weight that a frame reads."""
    with torch.device("meta"):
        model = CatTTS(SIZES["small"]())
    temporal = 12 * (512 * (512 + 2 * 256 + 512) + 3 * 512 * 1536 + 2 * 512 + 2 * 64) + 512
    layers = 4 * (256 * (256 + 2 * 128 + 256) + 3 * 256 * 1536 + 2 * 256 + 2 * 64)
    assert frame_bytes(model, 8) == 4 * (temporal + 512 * 256 + 9 * layers + 8 * 1025 * 256)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--depths", "1"], "choose 2 to 32"),
        (["--voice-depths", "4,13"], "the embedded model has 1 to 12"),
        (["--out", "/nowhere/speed.json"], "there is no folder"),
        (["--device", "abacus"], "device 'abacus'"),
    ],
)
def test_bad_options(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(argv) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_unknown_size(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        speed.main(["--sizes", "huge"])
    assert "choose from tiny,small,paper" in capsys.readouterr().err
