"""Read VoxBox: `metadata/<corpus>.jsonl`, and audio in `audios/<corpus>`, as tar archives or extracted.

Records do not name the speaker; `speaker_ids/<corpus>.*` does, where it exists. Missing audio, missing fields
of a record and missing corpora are tolerated and counted.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from training.data.archives import AUDIO_SUFFIXES, DAMAGED, archives_in, members, seconds_of
from training.data.languages import guess_language
from training.data.licenses import license_of
from training.data.manifest import Clip


class ArchivePosition(NamedTuple):
    """Where in a corpus's archives a sound file is."""

    order: int
    archive: Path
    member: str


def voxbox(root: Path, missed: Counter[str], corpora: Sequence[str] = ()) -> Iterator[Clip]:
    """Yield the clips corpus by corpus, in the order in which they are stored.

    Archives are read through once to list what they hold.

    Args:
        root: the folder with metadata/ and audios/.
        missed: counts what is missing, by a description.
        corpora: which corpora; by default all.

    Raises:
        ValueError: there is no metadata/.
    """
    if not (root / "metadata").is_dir():
        raise ValueError(f"{root} holds no metadata/: give the folder that holds metadata/ and audios/")
    for corpus in corpora or sorted(path.stem for path in (root / "metadata").glob("*.jsonl")):
        if (root / "metadata" / f"{corpus}.jsonl").exists():
            yield from _corpus(root, corpus, missed)
        else:
            missed[f"{corpus}: no metadata"] += 1


def _corpus(root: Path, corpus: str, missed: Counter[str]) -> Iterator[Clip]:
    path, archives = root / "metadata" / f"{corpus}.jsonl", archives_in(root / "audios" / corpus)
    speakers = _speakers(root / "speaker_ids", corpus)
    positions: dict[str, ArchivePosition] = {}
    seconds: dict[str, float | None] = {}
    offsets = None
    if archives:
        unmeasured = {_key(row) for _, row in _rows(path) if not _seconds(row)}
        positions, seconds = _contents(archives, unmeasured, missed)
        nowhere = ArchivePosition(len(positions), path, "")
        stored = sorted((positions.get(_key(row), nowhere).order, offset) for offset, row in _rows(path))
        offsets = [offset for _, offset in stored]
    for _, row in _rows(path, offsets):
        key = _key(row)
        if not key:
            missed[f"{corpus}: broken record, or neither wav_path nor index"] += 1
            continue
        position = positions.get(key)
        audio = position.archive if position else _extracted(root, corpus, row)
        if not position and not audio.exists():
            missed[f"{corpus}: no audio"] += 1
        duration = _seconds(row)
        if duration is None:
            missed[f"{corpus}: no duration"] += 1
            duration = seconds.get(key) if position else seconds_of(audio)
            if duration is None:
                missed[f"{corpus}: left out, duration unknown"] += 1
                continue
        text = str(row.get("text") or "").strip()
        for field in ("text", "language"):
            if not row.get(field):
                missed[f"{corpus}: no {field}"] += 1
        speaker = speakers.get(key)
        if speakers and not speaker:
            missed[f"{corpus}: no speaker"] += 1
        yield Clip(
            audio=audio,
            member=position.member if position else "",
            text=text or None,
            speaker=f"{corpus}/{speaker}" if speaker else "",
            language=str(row.get("language") or guess_language(text)).lower(),
            duration=duration,
            source=corpus,
            license=license_of(corpus),
        )


def _rows(path: Path, offsets: Sequence[int] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the records at some bytes of a file, by default all, and their bytes; broken ones are empty."""
    with path.open("rb") as file:
        for offset in offsets if offsets is not None else _line_offsets(path):
            file.seek(offset)
            try:
                row = json.loads(file.readline())
            except ValueError:
                row = {}
            yield offset, row if isinstance(row, dict) else {}


def _line_offsets(path: Path) -> Iterator[int]:
    offset = 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield offset
            offset += len(line)


def _key(row: dict[str, Any]) -> str:
    """Return the name that a record shares with its sound file, wherever that is."""
    return _stem(str(row.get("wav_path") or row.get("index") or ""))


def _stem(path: str) -> str:
    """Return the name without folder and, if it is that of a sound file, without suffix."""
    name = PurePosixPath(path).name
    return PurePosixPath(name).stem if name.lower().endswith(AUDIO_SUFFIXES) else name


def _seconds(row: dict[str, Any]) -> float | None:
    duration = row.get("duration")
    return float(duration) if isinstance(duration, int | float) and duration > 0 else None


def _extracted(root: Path, corpus: str, row: dict[str, Any]) -> Path:
    """Return the sound file of a record that is in no archive; the first possible path if there is none."""
    if row.get("wav_path"):
        return root / "audios" / str(row["wav_path"])
    paths = [root / "audios" / corpus / f"{row['index']}{suffix}" for suffix in AUDIO_SUFFIXES]
    return next((path for path in paths if path.exists()), paths[0])


def _contents(
    archives: Sequence[Path], unmeasured: set[str], missed: Counter[str]
) -> tuple[dict[str, ArchivePosition], dict[str, float | None]]:
    """Return where every sound file is, and the duration in seconds of those in `unmeasured`."""
    positions: dict[str, ArchivePosition] = {}
    seconds: dict[str, float | None] = {}
    for archive in archives:
        try:
            for name, content in members(archive):
                key = _stem(name)
                if key not in positions and name.lower().endswith(AUDIO_SUFFIXES):
                    positions[key] = ArchivePosition(len(positions), archive, name)
                    if key in unmeasured:
                        seconds[key] = seconds_of(content)
        except DAMAGED:
            missed[f"{archive.name}: cut off, or no archive"] += 1
    return positions, seconds


def _speakers(folder: Path, corpus: str) -> dict[str, str]:
    """Return the speaker of each index.

    The file is JSON (index to speaker), JSONL (`index` and `speaker...` or `spk...`) or lines of index and
    speaker, between which are a tab, a comma, a bar or a space.
    """
    paths = sorted(folder.glob(f"{corpus}.*"))
    if not paths:
        return {}
    path = paths[0]
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return {_stem(index): str(speaker) for index, speaker in json.loads(text).items()}
    speakers: dict[str, str] = {}
    for line in text.splitlines():
        if path.suffix == ".jsonl":
            row = json.loads(line)
            names = [name for name in row if name.startswith(("speaker", "spk"))]
            if "index" in row and names:
                speakers[_stem(str(row["index"]))] = str(row[names[0]])
        else:
            fields = line.replace("\t", " ").replace(",", " ").replace("|", " ").split()
            if len(fields) == 2:
                speakers[_stem(fields[0])] = fields[1]
    return speakers
