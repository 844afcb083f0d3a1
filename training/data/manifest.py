"""Read and write the manifest of a corpus of any audio: a JSON object on each line, for each clip."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REQUIRED = ("audio", "duration")
TASKS = ("asr", "multi_speaker_asr", "caption")
"""What a text is to its audio: the words of one speaker, those of several, or a description. Their order is
that of the semantic head's task tags in checkpoints, and must not change."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One recording, of a speaker or of any other sound."""

    audio: Path
    """A sound file, or with `member` the archive that holds it. Absolute in memory; written relative to the
    manifest's folder if it is inside it."""
    text: str | None
    """The words or the description, see `task`; None where unknown."""
    speaker: str
    """Required of speech; empty where several speak, or nobody does."""
    language: str
    duration: float
    """Seconds."""
    source: str
    license: str
    task: str = "asr"
    """One of `TASKS`; means nothing where there is no text."""
    member: str = ""
    """Name inside the tar archive `audio`."""

    @property
    def name(self) -> str:
        """The name in messages, which does not change when a corpus moves: no folder outside an archive."""
        return f"{self.audio.name}:{self.member}" if self.member else self.audio.name


def read_manifest(path: Path | str) -> list[Clip]:
    """Read all clips of a JSONL manifest, in order; columns beyond those of `Clip` are ignored.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not a JSON object, or lacks a column; the message gives file and line.
    """
    return [clip for _, clip in iterate_manifest(path)]


def iterate_manifest(path: Path | str, offset: int = 0) -> Iterator[tuple[int, Clip]]:
    """Yield the clips of a manifest one by one, since tens of millions do not fit into memory.

    Args:
        path: the manifest.
        offset: byte at which to start, which must be the first of a line.

    Yields:
        The byte at which a clip's line begins, which can serve as `offset` later, and the clip.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not a JSON object, or lacks a column; the message gives file and line.
    """
    folder = os.path.realpath(Path(path).parent)
    with Path(path).open("rb") as file:
        file.seek(offset)
        start = f", from byte {offset} on" if offset else ""
        for number, line in enumerate(file, 1):
            if line.strip():
                where = f"{path}:{number}{start}"
                yield offset, _clip(line, where, folder)
            offset += len(line)


def write_manifest(path: Path | str, clips: Iterable[Clip]) -> None:
    """Write the manifest beside its final name, then rename it: readers see the old file or the new one."""
    path = Path(path)
    folder, resolved = os.path.realpath(path.parent), cache(os.path.realpath)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as out:
            for clip in clips:
                audio = os.path.join(resolved(clip.audio.parent), clip.audio.name)
                row = {**vars(clip), "audio": audio.removeprefix(folder + os.sep)}
                if not clip.member:
                    del row["member"]
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _clip(line: bytes, where: str, folder: str) -> Clip:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON ({error}); write one whole object a line") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where} holds a JSON {type(row).__name__}; every line must hold one JSON object")
    text = row.get("text") or None
    task = row.get("task") or "asr"
    if task not in TASKS:
        raise ValueError(f"{where} has task {task!r}; choose one of {', '.join(TASKS)}")
    spoken = ("speaker",) if text and task == "asr" else ()
    missing = [name for name in (*REQUIRED, *spoken) if row.get(name) is None]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}; add the missing columns to this line")
    if not isinstance(row["duration"], int | float) or row["duration"] <= 0:
        raise ValueError(f"{where} has duration {row['duration']!r}; give a positive number of seconds")
    return Clip(
        audio=Path(os.path.normpath(os.path.join(folder, row["audio"]))),
        text=text,
        speaker=str(row.get("speaker") or ""),
        language=row.get("language") or "en",
        duration=float(row["duration"]),
        source=row.get("source") or "unknown",
        license=row.get("license") or "unknown",
        task=task,
        member=row.get("member") or "",
    )
