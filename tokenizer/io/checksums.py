"""Checksums of the files of a model folder, so that a damaged or missing file can be named."""

import hashlib
import json
from pathlib import Path
from typing import Any

CHECKSUMS = "checksums.json"
_TEXT = (".json", ".txt")
"""Files whose line ends a version control system may change."""


def write_checksums(folder: Path, tokenizer: str) -> None:
    """Record the files of a folder and its folders, but for its documents.

    Args:
        folder: The folder of a model.
        tokenizer: The fingerprint of the audio tokenizer whose codes the model speaks, as hexadecimal digits.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {
        path.relative_to(folder).as_posix(): _checksum(path)
        for path in paths
        if path.name != CHECKSUMS and path.suffix != ".md" and not path.name.startswith(".")
    }
    text = json.dumps({"tokenizer": tokenizer, "files": files}, indent=2)
    (folder / CHECKSUMS).write_text(text + "\n", encoding="utf-8")


def has_checksums(folder: Path) -> bool:
    """Return whether the files of a folder were recorded."""
    return (folder / CHECKSUMS).is_file()


def expected_tokenizer(folder: Path) -> str | None:
    """Return the fingerprint of the audio tokenizer that belongs to a model; None if it is not recorded."""
    return _read(folder)["tokenizer"] if has_checksums(folder) else None


def damaged_files(folder: Path) -> list[str]:
    """Compare the files of a folder with their checksums.

    Args:
        folder: The folder of a model.

    Returns:
        A line for each file that is missing or damaged; none where nothing was recorded.
    """
    recorded = _read(folder)["files"] if has_checksums(folder) else {}
    missing = [f"{name} is missing" for name in recorded if not (folder / name).is_file()]
    damaged = [
        f"{name} is damaged"
        for name, checksum in recorded.items()
        if (folder / name).is_file() and _checksum(folder / name) != checksum
    ]
    return missing + damaged


def _read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))


def _checksum(path: Path) -> str:
    data = path.read_bytes()
    return hashlib.sha256(data.replace(b"\r\n", b"\n") if path.suffix in _TEXT else data).hexdigest()
