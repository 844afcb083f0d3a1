"""Every command that the README and the pages name exists, with the options that stand beside it."""

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OURS = ("tokenizer", "cat_tts", "inference", "training", "eval")


def code_of(page: Path) -> Iterator[str]:
    """Lines of code, in fences (where a backslash joins lines) and in backticks."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```[^\n]*\n(.*?)```", text, re.DOTALL):
        yield from re.sub(r"\\\n\s*", " ", block).splitlines()
    yield from re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def commands() -> dict[tuple[str, ...], set[tuple[str, str]]]:
    """(module, subcommand, ...) of each command, with its options and the pages they stand on."""
    found: dict[tuple[str, ...], set[tuple[str, str]]] = {}
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        if name.startswith("docs/lab/"):
            continue
        for line in code_of(page):
            for part in re.split(r"\s(?:&&|\||;)\s", line.split(" #")[0]):
                match = re.search(r"-m (\S+)(.*)|\bcat-tts(?=\s|$)(.*)", part)
                if not match or (match[1] and match[1].split(".")[0] not in OURS):
                    continue
                rest = match[2] if match[1] else match[3]
                try:
                    words = shlex.split(rest)
                except ValueError:
                    words = rest.split()
                module = (match[1] or "inference.cli.main").rstrip(".,:")
                path = (module, *subcommand(module, words))
                options = found.setdefault(path, set())
                options |= {(word.partition("=")[0], name) for word in words if word.startswith("--")}
    return found


def subcommand(module: str, words: list[str]) -> list[str]:
    """The first words that choose a parser, as in `cat-tts clone` or `training.train_tts mini`."""
    if module not in ("inference.cli.main", "training.corpora") and not module.startswith("training.train_"):
        return ["tiny"] if module == "training.preflight" else []
    first = words[0] if words and re.fullmatch(r"[a-z][\w-]*", words[0]) else None
    if module.startswith("training.train_"):
        return [first or "tiny"]
    nested = first == "voice" and len(words) > 1 and re.fullmatch(r"[a-z]+", words[1])
    return [first, words[1]] if first and nested else [first] if first else []


@pytest.mark.parametrize(
    ("path", "options"),
    sorted(commands().items()),
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_exists(
    path: tuple[str, ...],
    options: set[tuple[str, str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    name, *rest = path
    package = importlib.import_module(name)
    if hasattr(package, "__path__"):
        package = importlib.import_module(f"{name}.__main__")
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(package.main([*rest, "--help"]))
    text = capsys.readouterr().out
    assert ended.value.code in (0, None) and text
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    known = {"--help", *re.findall(r"--[\w.-]+", text)}
    missing = [f"{option} ({page})" for option, page in sorted(options) if option not in known]
    assert not missing, f"{' '.join(path)}: {', '.join(missing)}"
