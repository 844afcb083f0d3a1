import gzip
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from tokenizer import AudioError
from training.data.archives import ClipReader, MissingAudio, members
from training.data.manifest import Clip


def archive(path: Path, contents: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, BytesIO(data))
    return path


def clip(audio: Path, member: str = "") -> Clip:
    return Clip(
        audio=audio,
        member=member,
        text="a",
        speaker="",
        language="en",
        duration=1.0,
        source="s",
        license="CC0",
    )


def contents(number: int) -> dict[str, bytes]:
    return {f"{number}/{i}": f"{number} {i}".encode() * 3000 for i in range(6)}


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_bytes_come_from_archives_and_files_in_the_order_of_the_archive(tmp_path: Path, suffix: str) -> None:
    paths = [archive(tmp_path / f"{i}{suffix}", contents(i)) for i in range(2)]
    (tmp_path / "loose").write_bytes(b"loose")
    wanted = [
        *[clip(paths[1], "1/4"), clip(paths[0], "0/3"), clip(tmp_path / "loose"), clip(paths[1], "1/2")],
        clip(paths[0], "0/3"),
    ]
    found = list(ClipReader().read(wanted))
    assert [i for i, _ in found] == [2, 3, 0, 1, 4]
    expected = {0: contents(1)["1/4"], 1: contents(0)["0/3"], 2: b"loose", 3: contents(1)["1/2"]}
    assert dict(found) == {**expected, 4: expected[1]}


def test_calls_behind_each_other_read_an_archive_once(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", contents(0))
    reader = ClipReader()
    for part in (["0/0", "0/1"], ["0/2"], ["0/4", "0/5"]):
        found = [data for _, data in reader.read([clip(path, name) for name in part])]
        assert found == [contents(0)[name] for name in part]
        path.unlink(missing_ok=True)  # it is open, and is not opened again
    with pytest.raises(MissingAudio, match=r"a\.tar\.gz: holds no 0/1, or ends before it"):
        raise next(error for _, error in reader.read([clip(path, "0/1")]) if isinstance(error, AudioError))


def test_what_lies_behind_is_found_by_beginning_again(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", contents(0))
    reader = ClipReader()
    for name in ("0/3", "0/1", "0/5", "0/0"):
        assert [data for _, data in reader.read([clip(path, name)])] == [contents(0)[name]]


def test_missing_and_cut_off(tmp_path: Path) -> None:
    whole = archive(tmp_path / "a.tar", contents(0)).read_bytes()
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(gzip.compress(whole[: len(whole) // 2]))
    junk = tmp_path / "junk.tar.gz"
    junk.write_bytes(b"junk" * 999)
    wanted = [
        *[
            clip(cut, "0/0"),
            clip(cut, "0/5"),
            clip(cut, "0/9"),
            clip(junk, "x"),
            clip(tmp_path / "b.tar", "x"),
        ],
        *[clip(tmp_path / "gone.wav"), clip(tmp_path)],
    ]
    found = dict(ClipReader().read(wanted))
    assert found[0] == contents(0)["0/0"]
    assert all(isinstance(found[i], MissingAudio) for i in (1, 2, 3, 4, 5))
    assert type(found[6]) is AudioError and "cannot be read (Is a directory)" in str(found[6])


def test_members_are_forgotten(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", contents(0))
    assert {name: content.read() for name, content in members(path)} == contents(0)
