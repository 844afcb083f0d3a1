"""The `cat-tts` command, run in this process."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from inference.cli.main import main

PROMPT_TEXT, TEXT = "What the recording says.", "Good morning, old fox."


@dataclass
class CommandResult:
    code: int
    out: str
    err: str


Command = Callable[..., CommandResult]


def clone_command(usual: dict[str, object], prompt: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    """`cat-tts clone`. Options replace the usual ones; None leaves one out, True stands for a bare flag."""

    def run(prompt: str | Path = prompt, **options: object) -> CommandResult:
        capfd.readouterr()
        code = 0
        try:
            main(["clone", str(prompt), *arguments({**usual, **options})])
        except SystemExit as exit:
            code = exit.code
        assert isinstance(code, int)
        printed = capfd.readouterr()
        return CommandResult(code, printed.out, printed.err)

    return run


def arguments(options: dict[str, object]) -> list[str]:
    words = []
    for name, value in options.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            words += [flag] if value is True else [flag, str(value)]
    return words


def refused(result: CommandResult, message: str, folder: Path, *there: str) -> None:
    """Exit code 2, one line on stderr that begins with `message`, nothing else said or written."""
    assert result.code == 2
    assert result.err.endswith("\n") and len(result.err.splitlines()) == 1
    assert re.match(f"cat-tts: {message}", result.err), result.err
    assert result.out == ""
    assert sorted(path.name for path in folder.iterdir()) == sorted(there)
