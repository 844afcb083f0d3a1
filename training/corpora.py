"""Import, validate, count, select and mix corpora: `python -m training.corpora COMMAND ...`.

python -m training.corpora import voxbox ROOT -o all.jsonl --corpora casia vctk
python -m training.corpora validate all.jsonl --clean clean.jsonl --report report.json
python -m training.corpora stats clean.jsonl
python -m training.corpora select clean.jsonl -o mine.jsonl --languages zh en --min-seconds 1 --max-seconds 30
python -m training.prepare CODES --manifest mine.jsonl --tokenizer FOLDER
python -m training.corpora mixture CODES --temperature 2 --weights casia 3
"""

import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from tokenizer.io.checkpoint import write_text
from training.data.importers import READERS
from training.data.manifest import Clip, write_manifest
from training.data.mixture import Mixture, mixture, write_mixture
from training.data.validate import Selection, select, stats, validate
from training.data.voxbox import voxbox

logger = logging.getLogger(__name__)

RENAMED_FAULTS = {"pace": "speaking rate"}
"""Names that faults had in earlier versions; they work for this version."""


@dataclass(frozen=True, kw_only=True)
class Import:
    """Read a corpus in its original layout, and write a manifest."""

    layout: Annotated[
        Literal["voxbox", "emilia", "libritts", "ljspeech", "csv", "jsonl"], tyro.conf.Positional
    ]
    root: Annotated[Path, tyro.conf.Positional]
    """The corpus's folder, or the CSV or JSONL file."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    corpora: tuple[str, ...] = ()
    """Corpora of VoxBox; all by default."""
    source: str | None = None
    """Name of the corpus in statistics and mixtures, in place of the usual one of its layout."""
    license: str | None = None
    """License of the recordings, in place of the one that is known of the corpus."""

    def __call__(self) -> int:
        """Import, and log what is missing."""
        missed: Counter[str] = Counter()
        clips = import_corpus(self.layout, self.root, missed, self.corpora)
        changes = {"source": self.source, "license": self.license}
        changes = {name: value for name, value in changes.items() if value is not None}
        written = 0

        def counted() -> Iterator[Clip]:
            nonlocal written
            for written, clip in enumerate(clips, 1):  # noqa: B007
                yield replace(clip, **changes)

        write_manifest(self.out, counted())
        for what, count in sorted(missed.items()):
            logger.warning("%7d  %s", count, what)
        logger.info("%d clips in %s", written, self.out)
        return 0


@dataclass(frozen=True, kw_only=True)
class Validate:
    """Read all audio of a manifest and report its faults; exit code 1 where there are any."""

    manifest: Annotated[Path, tyro.conf.Positional]
    ignore: tuple[str, ...] = ()
    """Names of faults that do not count."""
    workers: int = 1
    """Processes."""
    report: Path | None = None
    """JSON file to write: numbers by corpus, and every fault of every clip."""
    clean: Path | None = None
    """Manifest to write, of the clips without fault."""

    def __call__(self) -> int:
        """Validate, and print a table; return the exit code."""
        ignore = tuple(RENAMED_FAULTS.get(fault, fault) for fault in self.ignore)
        for old in RENAMED_FAULTS.keys() & set(self.ignore):
            print(f"the fault {old!r} is called {RENAMED_FAULTS[old]!r} now", file=sys.stderr)
        report = validate(self.manifest, ignore=ignore, workers=self.workers, clean=self.clean)
        if self.report:
            write_text(self.report, json.dumps(vars(report), indent=1, ensure_ascii=False) + "\n")
        print(table(report.corpora))
        print(f"{report.clips} clips, {report.faulty} with faults")
        return 1 if report.faulty else 0


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Print clips, hours, languages, licenses and speakers by corpus; no audio is read."""

    manifest: Annotated[Path, tyro.conf.Positional]
    json: Path | None = None
    """JSON file to write the numbers to."""

    def __call__(self) -> int:
        """Count, and print a table."""
        numbers = stats(self.manifest)
        if self.json:
            write_text(self.json, json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
        print(table(numbers))
        return 0


@dataclass(frozen=True, kw_only=True)
class Select:
    """Write a manifest of selected clips of another manifest."""

    manifest: Annotated[Path, tyro.conf.Positional]
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    selection: tyro.conf.OmitArgPrefixes[Selection] = field(default_factory=Selection)

    def __call__(self) -> int:
        """Select, and log how many clips were left out."""
        counts = select(self.manifest, self.out, self.selection)
        left_out = [f"{count} left out for their {what}" for what, count in counts.items() if what != "kept"]
        logger.info("%s", ", ".join([f"{counts['kept']} clips in {self.out}", *left_out]))
        return 0


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Choose how much of each corpus an epoch of training holds, and store it beside the code shards."""

    codes: Annotated[Path, tyro.conf.Positional]
    mixture: tyro.conf.OmitArgPrefixes[Mixture] = field(default_factory=Mixture)

    def __call__(self) -> int:
        """Store the mixture, and print the share of each corpus."""
        from training.data.code_shards import read_codes, read_info  # `datasets` takes long to import

        rows, rate = read_codes(self.codes), read_info(self.codes).frame_rate
        names, inverse = np.unique(np.asarray(rows["source"][:]), return_inverse=True)
        frames = np.bincount(inverse, np.asarray(rows["frames"][:]))
        counts = dict(zip(map(str, names), frames.tolist(), strict=True))
        shares, total = mixture(counts, self.mixture), sum(counts.values())
        write_mixture(self.codes, self.mixture)
        print(
            table(
                {
                    name: {
                        "hours": count / rate / 3600,
                        "share": shares[name],
                        "times an epoch": shares[name] * total / count,
                    }
                    for name, count in counts.items()
                }
            )
        )
        return 0


def import_corpus(
    layout: str, root: Path, missed: Counter[str], corpora: Sequence[str] = ()
) -> Iterator[Clip]:
    """Yield the clips of a corpus.

    Args:
        layout: the corpus's layout, see `Import`.
        root: its folder or file.
        missed: counts what is missing, by a description.
        corpora: which corpora of VoxBox; by default all.

    Raises:
        ValueError: `root` does not exist, or `corpora` is given for another layout.
    """
    if not root.exists():
        raise ValueError(f"{root}: no such file or folder; check the spelling")
    if layout == "voxbox":
        return voxbox(root, missed, corpora)
    if corpora:
        raise ValueError(f"--corpora {' '.join(corpora)}: only voxbox has corpora in it")
    return READERS[layout](root, missed)


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table of aligned columns, the name of each row first."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    cells = [["corpus", *(name.replace("_", " ") for name in names)]]
    cells += [[key, *(_cell(row.get(name)) for name in names)] for key, row in rows.items()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; a user error ends with one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    kinds = {"import": Import, "validate": Validate, "stats": Stats, "select": Select, "mixture": Mix}
    try:
        first = (__doc__ or "").partition("\n")[0]
        return tyro.extras.subcommand_cli_from_dict(
            kinds, prog="python -m training.corpora", args=argv, description=first
        )()
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
