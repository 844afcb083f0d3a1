import io
import json
import tarfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from training.pieces import INDEX, PIECE_BYTES, cut, join, main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Noise, which no compression makes smaller, and text, which one does."""
    folder = tmp_path / "model"
    (folder / "deep" / "er").mkdir(parents=True)
    noise = np.random.default_rng(0)
    (folder / "model.safetensors").write_bytes(noise.bytes(100_000))
    (folder / "deep" / "er" / "w.int8.safetensors").write_bytes(noise.bytes(10_000))
    (folder / "rows.jsonl").write_text("the same again\n" * 5000)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pieces_are_small_checked_and_put_together_again(folder: Path, tmp_path: Path) -> None:
    paths = cut(folder, tmp_path / "pieces", 30_000)
    *parts, index = paths
    assert [path.name for path in parts] == [f"piece-{i:02d}.bin" for i in range(len(parts))]
    assert max(path.stat().st_size for path in parts) == 30_000
    assert 110_000 < sum(path.stat().st_size for path in parts) < 130_000  # the text is nearly gone
    listed = json.loads(index.read_text())
    assert listed == {path.name: sha256(path.read_bytes()).hexdigest() for path in parts}
    assert contents(join(tmp_path / "pieces", tmp_path / "again")) == contents(folder)


def test_the_same_files_give_the_same_pieces_and_old_ones_go(folder: Path, tmp_path: Path) -> None:
    cut(folder, tmp_path / "one", 10_000)
    (folder / "rows.jsonl").touch()
    cut(folder, tmp_path / "one", 50_000)
    cut(folder, tmp_path / "two", 50_000)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert PIECE_BYTES <= 16 * 2**20


def test_missing_and_damaged_pieces_are_named(folder: Path, tmp_path: Path) -> None:
    first, second, *_ = cut(folder, tmp_path / "pieces", 30_000)
    second.write_bytes(second.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"piece-01\.bin is damaged, or of another cut"):
        join(tmp_path / "pieces", tmp_path / "again")
    first.unlink()
    with pytest.raises(ValueError, match=r"piece-00\.bin is missing: carry it here"):
        join(tmp_path / "pieces", tmp_path / "again")
    with pytest.raises(ValueError, match=r"lacks pieces\.json"):
        join(tmp_path, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_nothing_is_written_outside_the_folder(tmp_path: Path) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        info = tarfile.TarInfo("../outside")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"bad"))
    pieces = tmp_path / "pieces"
    pieces.mkdir()
    (pieces / "piece-00.bin").write_bytes(whole.getvalue())
    (pieces / INDEX).write_text(json.dumps({"piece-00.bin": sha256(whole.getvalue()).hexdigest()}))
    with pytest.raises(ValueError, match=r"holds \.\./outside, which is no file of a folder"):
        join(pieces, tmp_path / "again")
    assert not (tmp_path / "outside").exists()


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["cut", str(tmp_path), str(tmp_path / "pieces")])
    assert ended.value.code == 2
    assert "holds no files: nothing to cut" in capsys.readouterr().err
