"""Corpora in numbers: what is wrong in a manifest and how much of what it holds, and a part of it chosen."""

import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from training.data.archives import ClipReader
from training.data.audio_checks import FAULTS, NARROW, Finding, examine
from training.data.licenses import allows_commercial_use
from training.data.manifest import Clip, iterate_manifest, write_manifest

LOOSE = 64
"""Clips in files of their own that a worker examines at once; of an archive it examines all."""


@dataclass(kw_only=True)
class Report:
    """What `validate` found."""

    clips: int = 0
    faulty: int = 0
    corpora: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[dict[str, str]] = field(default_factory=list)
    """Clip, source, fault and detail of every fault."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which clips to keep; what is not named does not matter."""

    languages: tuple[str, ...] = ()
    corpora: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    """By name, as `stats` lists them."""
    commercial: bool = False
    """Keep only licences that are known to allow commercial use."""
    min_seconds: float = 0.0
    max_seconds: float = float("inf")

    def fault(self, clip: Clip) -> str | None:
        """Why a clip is not kept."""
        allowed = not self.commercial or allows_commercial_use(clip.license)
        tests = {
            "language": not self.languages or clip.language in self.languages,
            "corpus": not self.corpora or clip.source in self.corpora,
            "licence": allowed and (not self.licenses or clip.license in self.licenses),
            "duration": self.min_seconds <= clip.duration <= self.max_seconds,
        }
        return next((name for name, passed in tests.items() if not passed), None)


def select(manifest: Path, out: Path, chosen: Selection) -> Counter[str]:
    """Write the chosen clips; return how many were kept, and how many left out for what."""
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
) -> Report:
    """Read every sound of a manifest and report the faults but those in `ignore`; write the clips that have
    none to `clean`. Of equal sounds the first is kept."""
    if unknown := sorted(set(ignore) - FAULTS.keys()):
        raise ValueError(f"no fault is called {', '.join(unknown)}: choose of {', '.join(FAULTS)}")
    report = Report()

    def faultless() -> Iterator[Clip]:
        seen: dict[bytes, str] = {}
        for clip, finding in _findings(manifest, workers):
            faults = dict(finding.faults)
            if finding.digest and seen.setdefault(finding.digest, clip.name) != clip.name:
                faults["duplicate"] = f"of {seen[finding.digest]}"
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
    """By corpus: clips, hours, languages, licences, speakers, durations, pace; no sound is read."""
    corpora: dict[str, dict[str, Any]] = {}
    speakers: dict[str, set[str]] = {}
    for _, clip in iterate_manifest(manifest):
        empty = {"clips": 0, "hours": 0.0, "shortest": clip.duration, "longest": 0.0, "characters": 0}
        one = corpora.setdefault(clip.source, {**empty, "languages": Counter(), "licenses": Counter()})
        one["clips"] += 1
        one["hours"] += clip.duration / 3600
        one["shortest"] = min(one["shortest"], clip.duration)
        one["longest"] = max(one["longest"], clip.duration)
        one["characters"] += len(clip.text or "")
        one["languages"][clip.language] += 1
        one["licenses"][clip.license] += 1
        speakers.setdefault(clip.source, set()).update({clip.speaker} - {""})
    for name, one in corpora.items():
        one["speakers"] = len(speakers[name])
        one["characters_per_second"] = one.pop("characters") / (3600 * one["hours"])
    return corpora


def _findings(manifest: Path, workers: int) -> Iterator[tuple[Clip, Finding]]:
    clips = (clip for _, clip in iterate_manifest(manifest))
    with tqdm(desc="clips", unit="") as progress:
        if workers == 1:
            examined = map(_examined, _chunks(clips))
            yield from _watched(examined, progress)
        else:
            with multiprocessing.get_context("spawn").Pool(workers) as pool:
                yield from _watched(pool.imap(_examined, _chunks(clips)), progress)


def _watched(chunks: Iterable[list[tuple[Clip, Finding]]], progress: tqdm) -> Iterator[tuple[Clip, Finding]]:
    for chunk in chunks:
        progress.update(len(chunk))
        yield from chunk


def _chunks(clips: Iterable[Clip]) -> Iterator[list[Clip]]:
    """Clips that one worker examines: those of an archive that stand together, or some files."""
    for archive, group in groupby(clips, lambda clip: clip.audio if clip.member else None):
        if archive:
            yield list(group)
        else:
            while chunk := list(islice(group, LOOSE)):
                yield chunk


def _examined(clips: list[Clip]) -> list[tuple[Clip, Finding]]:
    found = dict(examine(clips, ClipReader()))
    return [(clip, found[i]) for i, clip in enumerate(clips)]


def _count(report: Report, clip: Clip, finding: Finding, faults: dict[str, str]) -> None:
    empty = {
        "clips": 0,
        "hours": 0.0,
        "faulty": 0,
        "narrow": 0,
        "sample_rates": Counter(),
        "faults": Counter(),
    }
    one = report.corpora.setdefault(clip.source, empty)
    report.clips += 1
    report.faulty += bool(faults)
    one["clips"] += 1
    one["hours"] += finding.seconds / 3600
    one["faulty"] += bool(faults)
    one["narrow"] += 0 < finding.bandwidth < NARROW
    if finding.sample_rate:
        one["sample_rates"][finding.sample_rate] += 1
    for fault, detail in faults.items():
        one["faults"][fault] += 1
        report.faults.append({"clip": clip.name, "source": clip.source, "fault": fault, "detail": detail})
