"""Read Emilia, LibriTTS, LJSpeech, CSV and JSONL as clips; VoxBox has a module to itself.

A reader yields clips in the order in which they are stored. It counts in `missed` what it has to leave out,
and does not look at the audio itself: `training.data.validate` does.
"""

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.data.archives import AUDIO_SUFFIXES, DAMAGED, TAR_SUFFIXES, members, seconds_of
from training.data.languages import guess_language
from training.data.licenses import license_of
from training.data.manifest import Clip

COLUMNS = {
    "audio": ("audio", "audio_file", "path", "wav", "file"),
    "text": ("text", "transcript", "sentence"),
    "speaker": ("speaker", "speaker_id", "spk"),
    "language": ("language", "lang"),
    "duration": ("duration",),
}
"""Names that other layouts give to each column."""


def emilia(root: Path, missed: Counter[str]) -> Iterator[Clip]:
    """Yield the clips of Emilia, in either of its forms.

    The forms are `<batch>.jsonl` beside each folder of MP3s; and pairs of a sound file and a JSON file, in
    folders or in tar archives.
    """
    for where, folders, names in os.walk(root):
        folders.sort()
        for path in (Path(where, name) for name in sorted(names)):
            if path.suffix == ".jsonl":
                for row in _json_lines(path, missed):
                    name = str(row.get("wav") or "")
                    beside = [path.parent / name, path.with_suffix("") / name]
                    audio = next((one for one in beside if one.exists()), beside[0])
                    yield from _clip(row, audio, "emilia", missed)
            elif path.suffix == ".json":
                sounds = [path.with_suffix(suffix) for suffix in AUDIO_SUFFIXES]
                audio = next((one for one in sounds if one.exists()), path.with_suffix(".mp3"))
                for row in _json_lines(path, missed, whole=True):
                    yield from _clip(row, audio, "emilia", missed)
            elif path.name.endswith(TAR_SUFFIXES):
                yield from _pairs(path, missed)


def libritts(root: Path, missed: Counter[str]) -> Iterator[Clip]:
    """Yield the clips of LibriTTS or LibriTTS-R.

    They are `<part>/<speaker>/<chapter>/<name>.wav` with `<name>.normalized.txt`.
    """
    for path in sorted(root.rglob("*.normalized.txt")):
        audio = path.with_name(path.name.removesuffix(".normalized.txt") + ".wav")
        row = {"text": path.read_text(encoding="utf-8"), "speaker": path.parts[-3], "language": "en"}
        yield from _clip(row, audio, "libritts", missed)


def ljspeech(root: Path, missed: Counter[str]) -> Iterator[Clip]:
    """Yield the clips of LJSpeech, which has one speaker.

    Its `metadata.csv` has lines `name|text|text with words for numbers`; audio is in `wavs/`.
    """
    for line in (root / "metadata.csv").read_text(encoding="utf-8").splitlines():
        name, *texts = line.split("|")
        row = {"text": texts[-1] if texts else "", "speaker": "lj", "language": "en"}
        yield from _clip(row, root / "wavs" / f"{name}.wav", "ljspeech", missed)


def csv_file(path: Path, missed: Counter[str]) -> Iterator[Clip]:
    """Yield the clips of a table of audio, text and perhaps speaker and language.

    Bars, tabs or commas stand between the columns. A first line that names an audio column names them all, in
    any order.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        delimiter = next((mark for mark in "|\t," if mark in first), ",")
        file.seek(0)
        quoting = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
        lines = csv.reader(file, delimiter=delimiter, quoting=quoting)
        names = [name.strip().lower() for name in next(csv.reader([first], delimiter=delimiter), [])]
        if set(names) & set(COLUMNS["audio"]):
            next(lines)
        else:
            names = ["audio", "text", "speaker", "language"]
        for line in lines:
            yield from _named(dict(zip(names, line, strict=False)), path, missed)


def jsonl(path: Path, missed: Counter[str]) -> Iterator[Clip]:
    """Yield the clips of a file with an object `{"audio": ..., "text": ...}` on each line.

    The objects may also have language, speaker, duration, source and license.
    """
    for row in _json_lines(path, missed):
        yield from _named(row, path, missed)


READERS = {"emilia": emilia, "libritts": libritts, "ljspeech": ljspeech, "csv": csv_file, "jsonl": jsonl}


def _named(row: dict[str, Any], path: Path, missed: Counter[str]) -> Iterator[Clip]:
    """Yield the clip of a row with any of the usual column names; paths are relative to the file."""
    known = {
        ours: next((row[name] for name in names if row.get(name)), None) for ours, names in COLUMNS.items()
    }
    if not known["audio"]:
        missed[f"{path.name}: no audio"] += 1
        return
    source = str(row.get("source") or path.stem)
    for clip in _clip(known, path.parent / str(known["audio"]), source, missed):
        # unlike in the known corpora, speakers keep the name that the file gives them, without a prefix
        license = str(row.get("license") or clip.license)
        yield replace(clip, speaker=str(known["speaker"] or ""), license=license)


def _clip(
    row: dict[str, Any],
    audio: Path,
    source: str,
    missed: Counter[str],
    member: str = "",
    seconds: float | None = None,
) -> Iterator[Clip]:
    """Yield the clip of a row, or nothing where its duration is unknown."""
    try:
        duration = float(row.get("duration") or 0) or seconds or (0 if member else seconds_of(audio)) or 0
    except (TypeError, ValueError):
        duration = 0
    if duration <= 0:
        missed[f"{source}: left out, duration unknown"] += 1
        return
    text, speaker = str(row.get("text") or "").strip(), str(row.get("speaker") or "")
    yield Clip(
        audio=audio,
        member=member,
        text=text or None,
        speaker=f"{source}/{speaker}" if speaker else "",
        language=str(row.get("language") or guess_language(text)).lower(),
        duration=duration,
        source=source,
        license=license_of(source),
    )


def _pairs(archive: Path, missed: Counter[str]) -> Iterator[Clip]:
    """Yield the clips of an archive in which a sound file and its JSON file are neighbours."""
    sounds: dict[str, tuple[str, float | None]] = {}
    rows: dict[str, dict[str, Any]] = {}
    try:
        for name, content in members(archive):
            key, _, suffix = name.rpartition(".")
            if suffix == "json":
                rows.update((key, row) for row in _json(content.read(), archive.name, missed))
            elif f".{suffix}" in AUDIO_SUFFIXES:
                sounds[key] = (name, None if rows.get(key, {}).get("duration") else seconds_of(content))
            if key in sounds and key in rows:
                name, seconds = sounds.pop(key)
                yield from _clip(rows.pop(key), archive, "emilia", missed, name, seconds)
    except DAMAGED:
        missed[f"{archive.name}: cut off, or no archive"] += 1
    if halves := len(sounds) + len(rows):
        missed[f"{archive.name}: half of a pair"] += halves


def _json_lines(path: Path, missed: Counter[str], whole: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file, each a line, or a single object that is the `whole` file."""
    with path.open("rb") as file:
        for line in [file.read()] if whole else file:
            if line.strip():
                yield from _json(line, path.name, missed)


def _json(text: bytes, name: str, missed: Counter[str]) -> Iterator[dict[str, Any]]:
    try:
        row = json.loads(text)
    except ValueError:
        row = None
    if isinstance(row, dict):
        yield row
    else:
        missed[f"{name}: broken record"] += 1
