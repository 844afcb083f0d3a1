"""Checksums of a model folder name what is missing or damaged, and nothing else."""

from pathlib import Path

from tokenizer.io.checksums import (
    CHECKSUMS,
    damaged_files,
    expected_tokenizer,
    has_checksums,
    write_checksums,
)


def folder_of_a_model(folder: Path) -> Path:
    (folder / "tts").mkdir()
    (folder / "tts" / "model.safetensors").write_bytes(bytes(range(256)))
    (folder / "tts" / "config.json").write_text('{\n  "dim": 4\n}\n')
    (folder / "README.md").write_text("a model\n")
    write_checksums(folder, "0fec")
    return folder


def test_a_folder_as_it_was_written(tmp_path: Path) -> None:
    folder = folder_of_a_model(tmp_path)
    assert has_checksums(folder) and damaged_files(folder) == []
    assert expected_tokenizer(folder) == "0fec"
    assert "README.md" not in (folder / CHECKSUMS).read_text()


def test_documents_and_line_ends_may_change(tmp_path: Path) -> None:
    folder = folder_of_a_model(tmp_path)
    (folder / "README.md").write_text("another text\n")
    (folder / "tts" / "config.json").write_bytes(b'{\r\n  "dim": 4\r\n}\r\n')
    assert damaged_files(folder) == []


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    folder = folder_of_a_model(tmp_path)
    (folder / "tts" / "config.json").unlink()
    data = bytearray((folder / "tts" / "model.safetensors").read_bytes())
    data[100] ^= 1
    (folder / "tts" / "model.safetensors").write_bytes(data)
    assert damaged_files(folder) == ["tts/config.json is missing", "tts/model.safetensors is damaged"]


def test_a_folder_without_checksums_has_nothing_damaged(tmp_path: Path) -> None:
    assert not has_checksums(tmp_path) and damaged_files(tmp_path) == []
    assert expected_tokenizer(tmp_path) is None
