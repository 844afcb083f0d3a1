"""Synthesize every line of a list at every depth and seed, in groups that are complete or not there at all.

The last bits of a batch's sums depend on what else is in it. So that a run which was killed ends in the same
bytes, a group always has the same lines, and is synthesized from its beginning by an engine that serves
nothing else. Which process does it does not matter.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from eval.common.results import write_json
from eval.seed_tts.synthesize import AdaptedSynthesizer
from eval.seed_tts.utterance_list import UtteranceLine, spoken_prompts
from inference import Synthesizer
from inference.engine.request import Request
from tokenizer import save_audio
from tokenizer.io.audio import AI_GENERATED

LINES_PER_SLOT = 4
"""Lines of a group, for each slot: the smaller a group, the more slots are empty at its end."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Lines that are synthesized in one engine, at one depth, with one seed."""

    number: int
    depth: int
    seed: int
    lines: tuple[UtteranceLine, ...]


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """The output of a system for one line, which may be missing."""

    line: UtteranceLine
    wav: Path
    depth: int | None = None
    seed: int | None = None
    stop: str | None = None
    """Why it ended, where the system says so."""
    error: str | None = None
    """Why there is no file, where the system says so."""


def plan(lines: list[UtteranceLine], depths: tuple[int, ...], seeds: int, slots: int) -> list[Group]:
    """Return all groups of a run; its seeds are 1, 2, ...

    Args:
        lines: the list.
        depths: numbers of codebooks.
        seeds: how many seeds.
        slots: slots of the engine, which decide the size of a group.
    """
    size = LINES_PER_SLOT * slots
    parts = [
        (depth, seed, tuple(lines[start : start + size]))
        for depth in depths
        for seed in range(1, seeds + 1)
        for start in range(0, len(lines), size)
    ]
    return [
        Group(number=number, depth=depth, seed=seed, lines=part)
        for number, (depth, seed, part) in enumerate(parts)
    ]


def is_complete(group: Group, out: Path) -> bool:
    """Return whether a group's record is there, and all files that it lists."""
    return _record(group, out).exists() and all(
        take.error or take.wav.exists() for take in outputs(group, out)
    )


def synthesize_group(
    speaker: AdaptedSynthesizer, group: Group, out: Path, slots: int, candidates: int, retries: int
) -> None:
    """Synthesize a group; its record is written last.

    For a line that the model refuses, the record has the reason. Any other error ends the run.

    Args:
        speaker: the model.
        group: the lines.
        out: the folder of the run.
        slots: how many lines are synthesized at a time.
        candidates: best of so many, see `speak`.
        retries: further attempts at most, see `speak`.
    """
    start, synthesizer = time.perf_counter(), speaker.synthesizer
    requests = [_request(synthesizer, group, line) for line in group.lines]
    accepted = [request for request in requests if not isinstance(request, ValueError)]
    spoken = iter(speaker.speak(accepted, slots, candidates, retries))
    seconds = time.perf_counter() - start
    takes = []
    for line, request in zip(group.lines, requests, strict=True):
        record = {"utt": line.utt, "stop": None, "error": None, "seconds": 0.0}
        if isinstance(request, ValueError):
            takes.append({**record, "error": str(request)})
            continue
        take, wav = next(spoken), _wav(group, line, out)
        wav.parent.mkdir(parents=True, exist_ok=True)
        save_audio(wav, torch.from_numpy(take.audio), synthesizer.sample_rate, comment=AI_GENERATED)
        takes.append({**record, "stop": take.stop_reason, "seconds": take.seconds})
    path = _record(group, out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"depth": group.depth, "compute_seconds": seconds, "takes": takes})


def outputs(group: Group, out: Path) -> Iterator[Spoken]:
    """Yield the outputs of a group that `synthesize_group` has written."""
    takes = json.loads(_record(group, out).read_text(encoding="utf-8"))["takes"]
    for line, take in zip(group.lines, takes, strict=True):
        yield Spoken(
            line=line,
            wav=_wav(group, line, out),
            depth=group.depth,
            seed=group.seed,
            stop=take["stop"],
            error=take["error"],
        )


def speed(groups: list[Group], out: Path) -> dict[int, float | None]:
    """Return the RTF by depth: wall-clock seconds, with the encoding of new prompts, over those of audio."""
    spent: dict[int, float] = {}
    audible: dict[int, float] = {}
    for group in groups:
        record = json.loads(_record(group, out).read_text(encoding="utf-8"))
        seconds = sum(take["seconds"] for take in record["takes"])
        spent[group.depth] = spent.get(group.depth, 0.0) + record["compute_seconds"]
        audible[group.depth] = audible.get(group.depth, 0.0) + seconds
    return {depth: spent[depth] / audible[depth] if audible[depth] else None for depth in spent}


def _request(synthesizer: Synthesizer, group: Group, line: UtteranceLine) -> Request | ValueError:
    ((prompt_text, prompt_audio),) = spoken_prompts([line])
    try:
        return synthesizer.request(
            line.target_text, prompt_audio, prompt_text, depth=group.depth, seed=group.seed
        )
    except ValueError as reason:
        return reason


def _record(group: Group, out: Path) -> Path:
    return out / "work" / "groups" / f"{group.number:06}.json"


def _wav(group: Group, line: UtteranceLine, out: Path) -> Path:
    return out / "wavs" / f"depth-{group.depth}" / f"seed-{group.seed}" / f"{line.utt}.wav"
