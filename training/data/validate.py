"""Validate manifests, count what they hold, and select parts of them."""

import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from training.data.archives import ClipReader
from training.data.audio_checks import FAULTS, MIN_BANDWIDTH, Finding, examine
from training.data.licenses import allows_commercial_use
from training.data.manifest import Clip, iterate_manifest, write_manifest

FILES_PER_TASK = 64
"""Clips in separate files that a worker checks at a time; clips of an archive it checks all together."""


@dataclass(kw_only=True)
class ValidationReport:
    """Numbers and faults that `validate` found."""

    clips: int = 0
    faulty: int = 0
    corpora: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[dict[str, str]] = field(default_factory=list)
    """Clip, source, fault and detail of every fault."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which clips to keep; a property that is not given does not matter."""

    languages: tuple[str, ...] = ()
    corpora: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    """Names of licenses, as `stats` lists them."""
    commercial: bool = False
    """Keep only clips whose license is known to allow commercial use."""
    min_seconds: float = 0.0
    max_seconds: float = float("inf")

    def fault(self, clip: Clip) -> str | None:
        """Return the name of the property for which a clip is left out; None if it is kept."""
        allowed = not self.commercial or allows_commercial_use(clip.license)
        tests = {
            "language": not self.languages or clip.language in self.languages,
            "corpus": not self.corpora or clip.source in self.corpora,
            "license": allowed and (not self.licenses or clip.license in self.licenses),
            "duration": self.min_seconds <= clip.duration <= self.max_seconds,
        }
        return next((name for name, passed in tests.items() if not passed), None)


def select(manifest: Path, out: Path, chosen: Selection) -> Counter[str]:
    """Write a manifest of selected clips.

    Args:
        manifest: the manifest to read.
        out: the manifest to write.
        chosen: which clips to keep.

    Returns:
        How many clips were kept (`"kept"`), and how many were left out for each property.
    """
    counts: Counter[str] = Counter(kept=0)

    def kept() -> Iterator[Clip]:
        for _, clip in iterate_manifest(manifest):
            fault = chosen.fault(clip)
            counts[fault or "kept"] += 1
            if not fault:
                yield clip

    write_manifest(out, kept())
    return counts


def validate(
    manifest: Path, *, ignore: Sequence[str] = (), workers: int = 1, clean: Path | None = None
) -> ValidationReport:
    """Read all audio of a manifest and report the faults.

    Args:
        manifest: the manifest.
        ignore: names of faults that do not count.
        workers: number of processes.
        clean: where to write a manifest of the clips without fault; of clips with equal samples the first.

    Raises:
        ValueError: `ignore` names an unknown fault.
    """
    if unknown := sorted(set(ignore) - FAULTS.keys()):
        raise ValueError(f"no fault is called {', '.join(unknown)}: choose of {', '.join(FAULTS)}")
    report = ValidationReport()

    def faultless() -> Iterator[Clip]:
        names: dict[bytes, str] = {}
        for clip, finding in _findings(manifest, workers):
            faults = dict(finding.faults)
            if finding.digest and names.setdefault(finding.digest, clip.name) != clip.name:
                faults["duplicate"] = f"of {names[finding.digest]}"
            faults = {name: detail for name, detail in faults.items() if name not in ignore}
            _count(report, clip, finding, faults)
            if not faults:
                yield clip

    if clean:
        write_manifest(clean, faultless())
    else:
        for _ in faultless():
            pass
    return report


def stats(manifest: Path) -> dict[str, dict[str, Any]]:
    """Return statistics by corpus, without reading audio.

    They are clips, hours, languages, licenses, speakers, durations and characters a second.
    """
    corpora: dict[str, dict[str, Any]] = {}
    speakers: dict[str, set[str]] = {}
    for _, clip in iterate_manifest(manifest):
        empty = {"clips": 0, "hours": 0.0, "shortest": clip.duration, "longest": 0.0, "characters": 0}
        corpus = corpora.setdefault(clip.source, {**empty, "languages": Counter(), "licenses": Counter()})
        corpus["clips"] += 1
        corpus["hours"] += clip.duration / 3600
        corpus["shortest"] = min(corpus["shortest"], clip.duration)
        corpus["longest"] = max(corpus["longest"], clip.duration)
        corpus["characters"] += len(clip.text or "")
        corpus["languages"][clip.language] += 1
        corpus["licenses"][clip.license] += 1
        speakers.setdefault(clip.source, set()).update({clip.speaker} - {""})
    for name, corpus in corpora.items():
        corpus["speakers"] = len(speakers[name])
        corpus["characters_per_second"] = corpus.pop("characters") / (3600 * corpus["hours"])
    return corpora


def _findings(manifest: Path, workers: int) -> Iterator[tuple[Clip, Finding]]:
    clips = (clip for _, clip in iterate_manifest(manifest))
    with tqdm(desc="clips", unit="") as progress:
        if workers == 1:
            yield from _with_progress(map(_examine_chunk, _chunks(clips)), progress)
        else:
            with multiprocessing.get_context("spawn").Pool(workers) as pool:
                yield from _with_progress(pool.imap(_examine_chunk, _chunks(clips)), progress)


def _with_progress(
    chunks: Iterable[list[tuple[Clip, Finding]]], progress: tqdm
) -> Iterator[tuple[Clip, Finding]]:
    for chunk in chunks:
        progress.update(len(chunk))
        yield from chunk


def _chunks(clips: Iterable[Clip]) -> Iterator[list[Clip]]:
    """Yield clips for one worker: neighbours in the manifest that are in one archive, or some files."""
    for archive, group in groupby(clips, lambda clip: clip.audio if clip.member else None):
        if archive:
            yield list(group)
        else:
            while chunk := list(islice(group, FILES_PER_TASK)):
                yield chunk


def _examine_chunk(clips: list[Clip]) -> list[tuple[Clip, Finding]]:
    findings = dict(examine(clips, ClipReader()))
    return [(clip, findings[i]) for i, clip in enumerate(clips)]


def _count(report: ValidationReport, clip: Clip, finding: Finding, faults: dict[str, str]) -> None:
    empty = {
        "clips": 0,
        "hours": 0.0,
        "faulty": 0,
        "narrow": 0,
        "sample_rates": Counter(),
        "faults": Counter(),
    }
    corpus = report.corpora.setdefault(clip.source, empty)
    report.clips += 1
    report.faulty += bool(faults)
    corpus["clips"] += 1
    corpus["hours"] += finding.seconds / 3600
    corpus["faulty"] += bool(faults)
    corpus["narrow"] += 0 < finding.bandwidth < MIN_BANDWIDTH
    if finding.sample_rate:
        corpus["sample_rates"][finding.sample_rate] += 1
    for fault, detail in faults.items():
        corpus["faults"][fault] += 1
        report.faults.append({"clip": clip.name, "source": clip.source, "fault": fault, "detail": detail})
