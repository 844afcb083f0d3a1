"""Synthesise every line of a list at every depth and seed, in groups that are made whole or not at all.

The last bits of a batch's sums depend on who else is in it. So that a run which was killed ends in the same
bytes, a group is always made by the same company: of the same lines, from its beginning, by an engine of its
own, in which takes join and leave. Which process makes it does not matter.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from eval.common.results import write_json
from eval.seed_tts.synthesize import Tuned
from eval.seed_tts.utterance_list import Line, spoken_prompts
from inference import Synthesizer
from inference.engine.request import Request
from tokenizer import save_audio
from tokenizer.io.audio import AI_GENERATED

GROUP = 4
"""Lines of a group, for each slot: more slots stand empty at its end the smaller it is."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Takes that are made together."""

    number: int
    depth: int
    seed: int
    lines: tuple[Line, ...]


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """What a system gave for one line, or was to give."""

    line: Line
    wav: Path
    depth: int | None = None
    seed: int | None = None
    stop: str | None = None
    """Why it ended, where the system says so."""
    error: str | None = None
    """Why there is no file, where the system says so."""


def plan(lines: list[Line], depths: tuple[int, ...], seeds: int, slots: int) -> list[Group]:
    """All groups of a run; its seeds are 1, 2, ..."""
    size = GROUP * slots
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


def is_made(group: Group, out: Path) -> bool:
    """Its record is there, and so are all files that it tells of."""
    return _record(group, out).exists() and all(take.error or take.wav.exists() for take in made(group, out))


def make(speaker: Tuned, group: Group, out: Path, slots: int, drafts: int, retries: int) -> None:
    """Synthesise a group; its record is written last.

    A take that the model refuses has its reason in the record. Anything else that goes wrong ends the run.
    """
    start, synthesizer = time.perf_counter(), speaker.synthesizer
    requests = [_request(synthesizer, group, line) for line in group.lines]
    asked = [request for request in requests if not isinstance(request, ValueError)]
    spoken = iter(speaker.speak(asked, slots, drafts, retries))
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


def made(group: Group, out: Path) -> Iterator[Spoken]:
    """What `make` left of a group."""
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
    """RTF by depth: wall-clock seconds of all groups, with prompts where they are new, over their audio's."""
    spent: dict[int, float] = {}
    audible: dict[int, float] = {}
    for group in groups:
        record = json.loads(_record(group, out).read_text(encoding="utf-8"))
        seconds = sum(take["seconds"] for take in record["takes"])
        spent[group.depth] = spent.get(group.depth, 0.0) + record["compute_seconds"]
        audible[group.depth] = audible.get(group.depth, 0.0) + seconds
    return {depth: spent[depth] / audible[depth] if audible[depth] else None for depth in spent}


def _request(synthesizer: Synthesizer, group: Group, line: Line) -> Request | ValueError:
    ((prompt_text, prompt_audio),) = spoken_prompts([line])
    try:
        return synthesizer.request(
            line.target_text, prompt_audio, prompt_text, depth=group.depth, seed=group.seed
        )
    except ValueError as reason:
        return reason


def _record(group: Group, out: Path) -> Path:
    return out / "work" / "groups" / f"{group.number:06}.json"


def _wav(group: Group, line: Line, out: Path) -> Path:
    return out / "wavs" / f"depth-{group.depth}" / f"seed-{group.seed}" / f"{line.utt}.wav"
