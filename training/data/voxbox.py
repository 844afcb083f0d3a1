"""VoxBox: `metadata/<corpus>.jsonl`, and the sounds in `audios/<corpus>`, as tar archives or extracted.

Records say nothing of the speaker; `speaker_ids/<corpus>.*`, where it is there, does. What is missing is
tolerated and counted: sounds, fields of a record, whole corpora.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from training.data.archives import AUDIO_SUFFIXES, DAMAGED, archives_in, members, seconds_of
from training.data.languages import guess_language
from training.data.licenses import licence_of
from training.data.manifest import Clip


class Place(NamedTuple):
    """Where in a corpus's archives a sound is, first things first."""

    order: int
    archive: Path
    member: str


def voxbox(root: Path, missed: Counter[str], corpora: Sequence[str] = ()) -> Iterator[Clip]:
    """The clips of some corpora, by default of all, corpus by corpus, in the order in which they are stored.

    Archives are read through once to find out what they hold. `missed` counts what was not there.
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
    places: dict[str, Place] = {}
    seconds: dict[str, float | None] = {}
    offsets = None
    if archives:
        unmeasured = {_key(row) for _, row in _rows(path) if not _seconds(row)}
        places, seconds = _contents(archives, unmeasured, missed)
        nowhere = Place(len(places), path, "")
        stored = sorted((places.get(_key(row), nowhere).order, offset) for offset, row in _rows(path))
        offsets = [offset for _, offset in stored]
    for _, row in _rows(path, offsets):
        key = _key(row)
        if not key:
            missed[f"{corpus}: broken record, or neither wav_path nor index"] += 1
            continue
        place = places.get(key)
        audio = place.archive if place else _loose(root, corpus, row)
        if not place and not audio.exists():
            missed[f"{corpus}: no audio"] += 1
        duration = _seconds(row)
        if duration is None:
            missed[f"{corpus}: no duration"] += 1
            duration = seconds.get(key) if place else seconds_of(audio)
            if duration is None:
                missed[f"{corpus}: left out, for nothing tells its duration"] += 1
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
            member=place.member if place else "",
            text=text or None,
            speaker=f"{corpus}/{speaker}" if speaker else "",
            language=str(row.get("language") or guess_language(text)).lower(),
            duration=duration,
            source=corpus,
            license=licence_of(corpus),
        )


def _rows(path: Path, offsets: Sequence[int] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records at some bytes of a file, by default all, each with its byte; broken ones are empty."""
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
    """What a record and its sound have in common, wherever the sound is."""
    return _stem(str(row.get("wav_path") or row.get("index") or ""))


def _stem(path: str) -> str:
    """The name without folder and, if it is that of a sound, suffix."""
    name = PurePosixPath(path).name
    return PurePosixPath(name).stem if name.lower().endswith(AUDIO_SUFFIXES) else name


def _seconds(row: dict[str, Any]) -> float | None:
    duration = row.get("duration")
    return float(duration) if isinstance(duration, int | float) and duration > 0 else None


def _loose(root: Path, corpus: str, row: dict[str, Any]) -> Path:
    """Where the sound of a record is if it is in no archive; the first candidate where it is nowhere."""
    if row.get("wav_path"):
        return root / "audios" / str(row["wav_path"])
    candidates = [root / "audios" / corpus / f"{row['index']}{suffix}" for suffix in AUDIO_SUFFIXES]
    return next((path for path in candidates if path.exists()), candidates[0])


def _contents(
    archives: Sequence[Path], unmeasured: set[str], missed: Counter[str]
) -> tuple[dict[str, Place], dict[str, float | None]]:
    """Where every sound is, and how long those of `unmeasured` are."""
    places: dict[str, Place] = {}
    seconds: dict[str, float | None] = {}
    for archive in archives:
        try:
            for name, content in members(archive):
                key = _stem(name)
                if key not in places and name.lower().endswith(AUDIO_SUFFIXES):
                    places[key] = Place(len(places), archive, name)
                    if key in unmeasured:
                        seconds[key] = seconds_of(content)
        except DAMAGED:
            missed[f"{archive.name}: cut off, or no archive"] += 1
    return places, seconds


def _speakers(folder: Path, corpus: str) -> dict[str, str]:
    """Speaker by index, from JSON (index to speaker), JSONL (`index` and `speaker...` or `spk...`) or lines
    of index and speaker, between which are a tab, a comma, a bar or a space."""
    found = sorted(folder.glob(f"{corpus}.*"))
    if not found:
        return {}
    path = found[0]
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
