"""Code, options and pages use the words of the field, and none of the private ones listed here."""

import io
import re
import tokenize
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

CODE = ("tokenizer", "cat_tts", "inference", "training", "eval", "tests")
PAGES = ("README.md", "CONTRIBUTING.md", "Makefile", "docs", "recipes", "examples", "cat_tts/pretrained")
PRIVATE_DOCS = ("docs/lab", "docs/results", "docs/report.md", "CHANGELOG.md")

IDENTIFIERS = [
    r"told",
    r"untold",
    r"untold_rows",
    r"unheard",
    r"heard",
    r"heard_of",
    r"hearing",
    r"listener",
    r"judge",
    r"judged",
    r"judging",
    r"Judgement",
    r"judgement",
    r"tint",
    r"timbre",
    r"timbres",
    r"timbre_of",
    r"meant_from",
    r"begin_anew",
    r"read_tables",
    r"point_heads",
    r"Take",
    r"TakeStream",
    r"take_file",
    r"draft",
    r"drafts",
    r"draft_depth",
    r"master",
    r"mastering",
    r"mastered",
    r"Edges",
    r"edged",
    r"_judge",
    r"_give",
    r"Gate",
    r"GUARDED",
    r"_admit",
    r"together",
    r"Delivery",
    r"Reading",
    r"ReadingStream",
    r"Passage",
    r"passage",
    r"Piece",
    r"Script",
    r"Made",
    r"Kept",
    r"Ticket",
    r"ticket",
    r"tickets",
    r"door",
    r"_door",
    r"let_go",
    r"sweep",
    r"drive",
    r"Sight",
    r"sight",
    r"seen",
    r"lived",
    r"adopt",
    r"past",
    r"restart",
    r"alone",
    r"shades",
    r"lows",
    r"directions",
    r"_face",
    r"Lookup",
    r"Search",
    r"Knobs",
    r"knobs",
    r"chance",
    r"choose",
    r"pace",
    r"shared_time",
    r"text_frames",
    r"revival",
    r"Revival",
    r"revive",
    r"descend",
    r"trapezoid",
    r"hollow",
    r"shell",
    r"bare",
    r"landing",
    r"turned",
    r"own_text",
    r"retold",
    r"spelt",
    r"given",
    r"misheard",
    r"exchanged",
    r"said",
    r"WORDS",
    r"visitor",
    r"evidence",
    r"text_evidence",
    r"asked",
    r"ENOUGH",
    r"EVERY",
    r"FEW",
    r"LEAST",
    r"LONG",
    r"SHORT",
    r"MOST",
    r"recogniser",
    r"recognisers",
]
"""Identifiers that no code has."""
PATTERNS = (r"MOST_\w+", r"LEAST_\w+", r"\w*_judge\w*", r"\w*judge_\w*", r"\w*listener\w*", r"\w*evidence\w*")
"""Patterns of identifiers that no code has."""
OPTIONS = [
    r"dropout.untold",
    r"dropout.unheard",
    r"judge",
    r"tint",
    r"timbre",
    r"meant-from",
    r"drafts",
    r"draft",
    r"master",
    r"tune",
    r"revive",
    r"shared-time",
    r"text-frames",
    r"takes",
    r"contests",
    r"tail",
]
"""Options that no code and no page names."""
PHRASES = (
    r"the visitor",
    r"\buntold\b",
    r"\bunheard\b",
    r"\bTakeStream\b",
    r"\bmeant[-_]from\b",
)
"""Phrases that no page has."""

ALLOWED = {
    # In ITU-R BS.1534 the person who rates is called a listener
    ("eval/mushra/", "listener"): "the term of MUSHRA",
    ("tests/eval/mushra/", "listener"): "the term of MUSHRA",
    ("inference/voices/catvoice_file.py", "timbre"): "a key of the file format .catvoice",
    ("inference/voices/catvoice_format.py", "timbre"): "a key of the file format .catvoice",
    ("training/synthetic/teacher_kokoro.py", "timbre"): "the first half of Kokoro's style vector",
}
OLD_NAMES = re.compile(
    r"renamed_options\.py$|test_renamed_options\.py$|test_clone_long_text\.py$|test_words\.py$"
)
"""Files that name old options, because these work for one more version."""


def files(*folders: str, suffixes: tuple[str, ...]) -> list[Path]:
    paths = [ROOT / folder for folder in folders if (ROOT / folder).exists()]
    found = [path for path in paths if path.is_file()]
    found += [path for folder in paths for suffix in suffixes for path in folder.rglob(f"*{suffix}")]
    names = {path.relative_to(ROOT).as_posix(): path for path in found}
    return [path for name, path in sorted(names.items()) if not name.startswith(PRIVATE_DOCS)]


@cache
def names(path: Path) -> list[tuple[int, str]]:
    """Line and text of every identifier, those in backticks within strings and comments included."""
    source = path.read_text(encoding="utf-8")
    result = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            result.append((token.start[0], token.string))
        elif token.type in (tokenize.STRING, tokenize.COMMENT):
            for code in re.findall(r"`([^`\n]+)`", token.string):
                result += [(token.start[0], name) for name in re.findall(r"(?<![-\w])\w+", code)]
    return result


def allowed(name: str, word: str) -> bool:
    return any(
        name.startswith(place) and (word == known or known == "listener" in word) for place, known in ALLOWED
    )


SOURCES = [*files(*CODE, suffixes=(".py",)), ROOT / "app.py"]


@pytest.mark.parametrize("room", [*CODE, "app.py"])
def test_identifiers_are_the_fields(room: str) -> None:
    pattern = re.compile("|".join([*map(re.escape, IDENTIFIERS), *PATTERNS]))
    bad = []
    for path in SOURCES:
        name = path.relative_to(ROOT).as_posix()
        if name.split("/")[0] == room and not OLD_NAMES.search(name):
            words = [(line, word) for line, word in names(path) if pattern.fullmatch(word)]
            bad += [f"{name}:{line}: {word}" for line, word in words if not allowed(name, word)]
    assert not bad, "\n".join(bad)


def test_options_are_named_as_they_are_now() -> None:
    pattern = re.compile(rf"--(?:no-)?(?:\w+\.)*({'|'.join(map(re.escape, OPTIONS))})(?![-\w])")
    bad = []
    for path in [*SOURCES, *files(*PAGES, suffixes=(".md",))]:
        name = path.relative_to(ROOT).as_posix()
        if OLD_NAMES.search(name):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            renaming = "RENAMED" in line or re.search(r'"--[\w.-]+": "--[\w.-]+"', line)  # old to new
            if (match := pattern.search(line)) and not renaming:
                bad.append(f"{name}:{number}: {match[0]}")
    assert not bad, "\n".join(bad)


def test_pages_have_no_private_words() -> None:
    pattern = re.compile("|".join(PHRASES))
    bad = []
    for path in files(*PAGES, suffixes=(".md", ".json")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if match := pattern.search(line):
                bad.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert not bad, "\n".join(bad)


def test_no_class_name_is_used_twice() -> None:
    defined: dict[str, list[str]] = {}
    for path in SOURCES:
        for name in re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            defined.setdefault(name, []).append(path.relative_to(ROOT).as_posix())
    assert not {name: places for name, places in defined.items() if len(places) > 1}
