"""Run a listening test in the browser, and analyse its ratings (MUSHRA, ITU-R BS.1534-3).

    python -m eval.mushra REFERENCES [NAME=]SYSTEM [[NAME=]SYSTEM ...] --out ratings.jsonl
    python -m eval.mushra --analyse ratings.jsonl --out results.json

Each folder holds wav files of the same names. Every trial shows a reference by name, and in an order that
depends on the seed, the listener and the trial: the reference again, its low-pass anchors at 3.5 and 7 kHz
and every system, all equally loud. A rating is stored when the listener leaves its trial; those who return
under the same name continue where they were.
"""

import argparse
import logging
import sys
from pathlib import Path

from eval.common.results import command_line, require_place, write_results
from eval.mushra.analysis import RatingsFile, analyse, read_ratings
from eval.mushra.page import LOOK, build_page
from eval.mushra.trials import read_trials


def folder_option(text: str) -> tuple[str, Path]:
    """Parse `[NAME=]FOLDER`, for argparse.

    Args:
        text: The option.

    Returns:
        The name, which is the folder's where none is given, and the folder.
    """
    name, equals, place = text.partition("=")
    return (name, Path(place)) if equals and name and place else (Path(text).name, Path(text))


def serve(options: argparse.Namespace) -> None:
    """Serve the page until it is interrupted.

    Args:
        options: The parsed command line.

    Raises:
        ValueError: If the folders make no fair test, the file of ratings is missing from the command line or
            its folder does not exist, or its ratings are those of another test.
    """
    if options.out is None:
        raise ValueError("name the file that ratings are kept in with --out")
    require_place(options.out)
    (_, reference), *folders = options.folders
    systems = dict(folders)
    if len(systems) < len(folders):
        raise ValueError("two systems have one name; tell them apart with NAME=FOLDER")
    trials, ratings = read_trials(reference, systems), RatingsFile(options.out)
    if ratings.ratings and ratings.ratings[0].scores.keys() != trials[0].conditions.keys():
        raise ValueError(f"{options.out}: holds the ratings of another test; name another file")
    page = build_page(trials, ratings, options.seed)
    page.launch(server_name=options.host, server_port=options.port, **LOOK)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0 on success, or 2 after one line on the standard error stream."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m eval.mushra", description="A listening test.")
    about = "[NAME=]FOLDER: the references, then each system"
    parser.add_argument("folders", type=folder_option, nargs="*", metavar="FOLDER", help=about)
    parser.add_argument("--seed", type=int, default=0, help="of the order of trials and conditions")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in")
    parser.add_argument("--port", type=int, default=7861)
    parser.add_argument("--analyse", type=Path, metavar="RATINGS", help="print what the ratings say")
    parser.add_argument("--out", type=Path, help="ratings (JSONL), or with --analyse the results (JSON)")
    options = parser.parse_args(argv)
    try:
        if bool(options.folders) == bool(options.analyse):
            raise ValueError("give the folders of a test, or --analyse with the ratings of one")
        if options.folders:
            serve(options)
            return 0
        require_place(options.out)
        tables = analyse(read_ratings(options.analyse))
    except (ValueError, OSError) as error:
        print(f"eval.mushra: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for table in tables:
        print(f"{table.title}\n\n{table.markdown}\n")
    if options.out:
        write_results(options.out, command_line("eval.mushra", argv), tables)
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(main())
