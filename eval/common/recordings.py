"""List the audio to measure: the files of a folder or a manifest, and the kind of each."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KINDS = ("speech", "sound", "music")
SUFFIXES = {".wav", ".flac", ".ogg", ".mp3"}


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One audio file of a test set."""

    path: Path
    name: str
    """The path relative to the folder or the manifest."""
    kind: str


def recordings(source: Path, kind: str = "speech") -> list[Recording]:
    """List the audio files below a folder, sorted, or those of a JSONL manifest, in its order.

    Args:
        source: A folder, or a manifest with the keys `audio` and, optionally, `kind`.
        kind: The kind of files for which no kind is given.

    Returns:
        The recordings, at least one.

    Raises:
        ValueError: If there is none, or a line of the manifest has no `audio`.
    """
    if source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
        found = [Recording(path=path, name=os.path.relpath(path, source), kind=kind) for path in files]
    else:
        lines = source.read_text(encoding="utf-8").splitlines()
        numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        found = [_line(line, f"{source}:{number}", source.parent, kind) for number, line in numbered]
    if not found:
        raise ValueError(f"{source} names no audio; give a folder of wav, flac, ogg or mp3, or a manifest")
    return found


def chosen(found: Sequence[Recording], kinds: Sequence[str], limit: int | None) -> list[Recording]:
    """Choose the recordings of some kinds, at most `limit` of each, spread evenly over the list.

    Args:
        found: The recordings to choose from.
        kinds: Kinds in the order of the result.
        limit: Most recordings of a kind; None for all.

    Returns:
        The chosen recordings, kind by kind.

    Raises:
        ValueError: If a kind has no recording.
    """
    picked = []
    for kind in kinds:
        of_kind = [recording for recording in found if recording.kind == kind]
        if not of_kind:
            there = ", ".join(sorted({recording.kind for recording in found}))
            raise ValueError(f"no recording is of the kind {kind}; there are: {there}")
        count = min(limit or len(of_kind), len(of_kind))
        picked += [of_kind[n * len(of_kind) // count] for n in range(count)]
    return picked


def _line(line: str, where: str, folder: Path, kind: str) -> Recording:
    try:
        fields = json.loads(line)
        name, kind = fields["audio"], fields.get("kind", kind)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{where} is no JSON object with "audio"; give a manifest or a folder') from error
    return Recording(path=folder / name, name=name, kind=kind)
