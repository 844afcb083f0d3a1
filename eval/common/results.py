"""What every evaluation needs: options, the command line in results, tables, atomic files."""

import argparse
import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from eval.assets import FOLDER_VARIABLE, AssetError, default_folder
from tokenizer.io.checkpoint import write_text


def comma_separated(text: str) -> tuple[int, ...]:
    """Parse an option such as `"1,2,4"` as (1, 2, 4), for argparse.

    Args:
        text: Whole numbers between commas.

    Raises:
        ArgumentTypeError: If it is anything else.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 1,2,4") from None


def positive(text: str) -> int:
    """Parse a whole number above 0, for argparse.

    Args:
        text: The number in decimal digits.

    Raises:
        ArgumentTypeError: If it is anything else.
    """
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def add_assets_option(parser: argparse.ArgumentParser) -> None:
    """Add `--assets`, whose default is the environment variable CAT_TTS_EVAL_ASSETS."""
    about = f"folder of python -m eval.assets (default: ${FOLDER_VARIABLE})"
    parser.add_argument("--assets", type=Path, default=default_folder(), help=about)


def require_assets(folder: Path | None) -> Path:
    """Return the assets folder.

    Args:
        folder: The value of `--assets`.

    Raises:
        AssetError: If no folder was named.
    """
    if folder is None:
        raise AssetError(
            f"no assets folder: run python -m eval.assets FOLDER, then set {FOLDER_VARIABLE}=FOLDER"
        )
    return folder


def command_line(module: str, argv: Sequence[str]) -> str:
    """Return the shell command that was run.

    Args:
        module: The module after `python -m`.
        argv: Its arguments.
    """
    return shlex.join(["python", "-m", module, *argv])


def require_place(path: Path | None) -> None:
    """Refuse an output file that could not be written, before hours are spent on its content.

    Args:
        path: The value of `--out`; None passes.

    Raises:
        ValueError: If its folder does not exist.
    """
    if path is not None and not path.parent.is_dir():
        raise ValueError(f"--out {path}: there is no folder {path.parent}; create it first")


def write_json(path: Path, data: dict) -> None:
    """Write a JSON file beside `path`, then rename it: readers see the old file or the whole new one.

    Args:
        path: The file to write or replace.
        data: What JSON can hold.

    Raises:
        ValueError: If a number is NaN or infinite.
    """
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table: rows under a head, with cells that JSON can hold.

    Raises:
        ValueError: If a row has more or fewer cells than the head.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(
                    f"table {self.title!r}: a row of {len(row)} cells under {len(self.head)} heads"
                )

    @property
    def markdown(self) -> str:
        """The table as Markdown, without its title."""
        return markdown_table(self.head, self.rows)


def write_results(
    path: Path,
    command: str,
    tables: Sequence[Table],
    figures: Sequence[Path] = (),
    details: Mapping[str, object] | None = None,
) -> None:
    """Write results in the one format that `eval.report` collects: `command`, `tables` and `figures`.

    Args:
        path: The JSON file.
        command: The shell command that was run.
        tables: The tables of the report.
        figures: Image files; they are named relative to `path`, so that the folder can be moved with them.
        details: Keys beside these three, for further computation.

    Raises:
        ValueError: If a number is NaN or infinite.
    """
    pictures = [os.path.relpath(figure, path.parent) for figure in figures]
    about = {"command": command, "tables": [asdict(table) for table in tables], "figures": pictures}
    write_json(path, about | dict(details or {}))


def mean(values: Iterable[float | None]) -> float | None:
    """Return the arithmetic mean of the values that are not None.

    Args:
        values: Numbers or None.

    Returns:
        The mean; None when no value is a number.
    """
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format a table for a model card: floats with three decimals, counts by name, a dash for nothing.

    Args:
        head: Names of the columns.
        rows: Cells by row; a dict is a set of counts by name.

    Returns:
        The lines of the Markdown table.
    """
    lines = [list(head), ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict):
        value = ", ".join(f"{key} {count}" for key, count in value.items())
    return "-" if value in (None, "") else str(value)
