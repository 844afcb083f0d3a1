"""Collect all results of a folder on one page.

    python -m eval.report docs/results -o docs/report.md

Every JSON file of the folder becomes one section: its tables, its figures, and the command that gives them
again. The files are those of `eval.common.results.write_results`.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from eval.common.results import Table
from tokenizer.io.checkpoint import write_text

HEAD = """# Results

Collected by `{command}`; each section ends with the command that made it.
"""


def report(folder: Path, page: Path) -> str:
    """Return the page's Markdown, with figures linked relative to the folder of the page.

    Args:
        folder: The folder of JSON results, with those below it.
        page: The Markdown file that the page is for; it is not written here.

    Raises:
        ValueError: If the folder has no results, a file in it is something else, or a figure is missing.
    """
    paths = sorted(folder.rglob("*.json"))
    if not paths:
        raise ValueError(f"{folder}: holds no results; run an evaluation with --out {folder}/NAME.json")
    command = f"python -m eval.report {os.path.relpath(folder)} -o {os.path.relpath(page)}"
    parts = [HEAD.format(command=command)]
    parts += [section(path, page.parent) for path in paths]
    return "\n".join(parts)


def section(path: Path, beside: Path) -> str:
    """Return one file of results as Markdown: its tables, its figures and its command.

    Args:
        path: The JSON file.
        beside: The folder that the links to figures are relative to.

    Raises:
        ValueError: If the file holds no results of an evaluation, or one of its figures is missing.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        tables = [Table(**table) for table in results["tables"]]
        command, figures = results["command"], results.get("figures", [])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not results of an evaluation ({error!r}); a file of results has command and tables"
        ) from error
    lines = [f"## {path.stem.replace('-', ' ').replace('_', ' ')}", ""]
    for table in tables:
        lines += [f"### {table.title}", "", table.markdown, ""]
    for figure in figures:
        picture = path.parent / figure
        if not picture.is_file():
            raise ValueError(f"{path}: its figure {figure} is missing; run the command again: {command}")
        lines += [f"![{picture.stem}]({Path(os.path.relpath(picture, beside)).as_posix()})", ""]
    return "\n".join([*lines, "```", command, "```", ""])


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when it ran, 2 with one line on the standard error stream when it could not."""
    parser = argparse.ArgumentParser(prog="python -m eval.report", description="All results on one page.")
    parser.add_argument("folder", type=Path, help="folder of JSON results, with those below it")
    parser.add_argument("-o", "--out", type=Path, required=True, help="Markdown page to write")
    options = parser.parse_args(argv)
    try:
        if not options.out.parent.is_dir():
            raise ValueError(f"-o {options.out}: there is no folder {options.out.parent}; create it first")
        write_text(options.out, report(options.folder, options.out))
    except (ValueError, OSError) as error:
        print(f"eval.report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
