"""Make manifests of corpora, and look at them: `python -m training.corpora VERB ...`.

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


@dataclass(frozen=True, kw_only=True)
class Import:
    """Read a corpus in its own layout, and write a manifest."""

    layout: Annotated[
        Literal["voxbox", "emilia", "libritts", "ljspeech", "csv", "jsonl"], tyro.conf.Positional
    ]
    root: Annotated[Path, tyro.conf.Positional]
    """The corpus's folder, or the CSV or JSONL file."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    corpora: tuple[str, ...] = ()
    """Of VoxBox; all by default."""
    source: str | None = None
    """What the corpus is called in statistics and mixtures, instead of its layout's usual name."""
    license: str | None = None
    """The recordings' licence, instead of what is known of the corpus."""

    def __call__(self) -> int:
        missed: Counter[str] = Counter()
        clips = import_corpus(self.layout, self.root, missed, self.corpora)
        changes = {"source": self.source, "license": self.license}
        changes = {name: value for name, value in changes.items() if value is not None}
        kept = 0

        def counted() -> Iterator[Clip]:
            nonlocal kept
            for kept, clip in enumerate(clips, 1):  # noqa: B007
                yield replace(clip, **changes)

        write_manifest(self.out, counted())
        for what, count in sorted(missed.items()):
            logger.warning("%7d  %s", count, what)
        logger.info("%d clips in %s", kept, self.out)
        return 0


@dataclass(frozen=True, kw_only=True)
class Validate:
    """Read every sound of a manifest and say what is wrong; exit code 1 where anything is."""

    manifest: Annotated[Path, tyro.conf.Positional]
    ignore: tuple[str, ...] = ()
    """Names of faults that are none here."""
    workers: int = 1
    """Processes."""
    report: Path | None = None
    """JSON: numbers by corpus, and every fault of every clip."""
    clean: Path | None = None
    """A manifest of the clips without fault."""

    def __call__(self) -> int:
        found = validate(self.manifest, ignore=self.ignore, workers=self.workers, clean=self.clean)
        if self.report:
            write_text(self.report, json.dumps(vars(found), indent=1, ensure_ascii=False) + "\n")
        print(table(found.corpora))
        print(f"{found.clips} clips, {found.faulty} with faults")
        return 1 if found.faulty else 0


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Clips, hours, languages, licences and speakers by corpus; no sound is read."""

    manifest: Annotated[Path, tyro.conf.Positional]
    json: Path | None = None
    """The same as JSON."""

    def __call__(self) -> int:
        numbers = stats(self.manifest)
        if self.json:
            write_text(self.json, json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
        print(table(numbers))
        return 0


@dataclass(frozen=True, kw_only=True)
class Select:
    """Write a manifest of some clips of another."""

    manifest: Annotated[Path, tyro.conf.Positional]
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    selection: tyro.conf.OmitArgPrefixes[Selection] = field(default_factory=Selection)

    def __call__(self) -> int:
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
    """The clips of a corpus in one of the layouts."""
    if not root.exists():
        raise ValueError(f"{root}: no such file or folder; check the spelling")
    if layout == "voxbox":
        return voxbox(root, missed, corpora)
    if corpora:
        raise ValueError(f"--corpora {' '.join(corpora)}: only voxbox has corpora in it")
    return READERS[layout](root, missed)


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Lines of aligned columns, the name first."""
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
    """Entry point: a mistake of the user ends with one line on stderr and exit code 2."""
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
