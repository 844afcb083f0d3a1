"""Files are written whole or not at all, and read up to a size."""

from pathlib import Path

import pytest

from tokenizer.io.atomic_files import check_target, new_file, read_bytes


class Refusal(ValueError):
    pass


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with new_file(path, Refusal) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), new_file(path, Refusal) as file:
        file.write(b"new")
        raise KeyError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_the_system_refuses_is_one_line(tmp_path: Path) -> None:
    refusal = pytest.raises(Refusal, match=r"gone/a: cannot be written \(No such file or directory\)")
    with refusal, new_file(tmp_path / "gone" / "a", Refusal):
        pass


def test_targets(tmp_path: Path) -> None:
    check_target(tmp_path / "a.CAT", [".cat"], Refusal, "code file")
    with pytest.raises(Refusal, match=r"unknown kind of code file; end the name with one of \.cat"):
        check_target(tmp_path / "a.dog", [".cat"], Refusal, "code file")
    with pytest.raises(Refusal, match="does not exist"):
        check_target(tmp_path / "gone" / "a.cat", [".cat"], Refusal, "code file")
    with pytest.raises(Refusal, match="is a folder"):
        check_target(tmp_path, [".cat"], Refusal, "code file")


def test_reading(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5, Refusal) == b"12345"
    with pytest.raises(Refusal, match="5 bytes; such a file has at most 4"):
        read_bytes(path, 4, Refusal)
    with pytest.raises(Refusal, match="is no file"):
        read_bytes(tmp_path, 4, Refusal)
    with pytest.raises(Refusal, match="no such file"):
        read_bytes(tmp_path / "b", 4, Refusal)
