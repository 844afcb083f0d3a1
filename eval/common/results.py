"""Share what every evaluation needs: options, the command line in results, tables, atomic files."""

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
    """`"1,2,4"` as (1, 2, 4), for argparse."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 1,2,4") from None


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def add_assets_option(parser: argparse.ArgumentParser) -> None:
    """`--assets`, whose default is the environment variable CAT_TTS_EVAL_ASSETS."""
    about = f"folder of python -m eval.assets (default: ${FOLDER_VARIABLE})"
    parser.add_argument("--assets", type=Path, default=default_folder(), help=about)


def require_assets(folder: Path | None) -> Path:
    """The assets folder.

    Raises:
        AssetError: none was named.
    """
    if folder is None:
        raise AssetError(
            f"no assets folder: run python -m eval.assets FOLDER, then set {FOLDER_VARIABLE}=FOLDER"
        )
    return folder


def command_line(module: str, argv: Sequence[str]) -> str:
    """The shell command that was run."""
    return shlex.join(["python", "-m", module, *argv])


def require_place(path: Path | None) -> None:
    """Refuse an output file that could not be written, before hours are spent on its content.

    Raises:
        ValueError: the folder does not exist.
    """
    if path is not None and not path.parent.is_dir():
        raise ValueError(f"--out {path}: there is no folder {path.parent}; create it first")


def write_json(path: Path, data: dict) -> None:
    """Write `data` beside `path`, then rename it: readers see the old file or the whole new one."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under a head; cells are what JSON can hold."""

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
        """The table without its title."""
        return markdown_table(self.head, self.rows)


def write_results(
    path: Path,
    command: str,
    tables: Sequence[Table],
    figures: Sequence[Path] = (),
    details: Mapping[str, object] | None = None,
) -> None:
    """The one shape of results that `eval.report` collects: `command`, `tables` and `figures`.

    Figures are named relative to the file, so that the folder can be moved with them; `details` are keys
    beside these three, for whoever computes on.
    """
    pictures = [os.path.relpath(figure, path.parent) for figure in figures]
    about = {"command": command, "tables": [asdict(table) for table in tables], "figures": pictures}
    write_json(path, about | dict(details or {}))


def mean(values: Iterable[float | None]) -> float | None:
    """Arithmetic mean of those that are there; None when none is."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table for a model card: floats with three decimals, counts by name, a dash for nothing."""
    lines = [list(head), ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict):
        value = ", ".join(f"{key} {count}" for key, count in value.items())
    return "-" if value in (None, "") else str(value)
