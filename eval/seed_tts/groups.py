"""Synthesize every line of a list at every depth and seed, in groups that are complete or not there at all.

The last bits of a batch's sums depend on what else is in it. So that a run which was killed ends in the same
bytes, a group always has the same lines, and is synthesized from its beginning by an engine that serves
nothing else. Which process does it does not matter.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from eval.common.results import write_json
from eval.seed_tts.utterance_list import UtteranceLine, spoken_prompts
from inference import SynthesisOptions, Synthesizer, Voice
from inference.longform.plan import plan as make_plan
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
        lines: The list.
        depths: The numbers of codebooks.
        seeds: The number of seeds.
        slots: Slots of the engine, which decide the size of a group.
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
    """Return whether a group's record is there, and all files that it lists.

    Args:
        group: The lines.
        out: The folder of the run.
    """
    return _record(group, out).exists() and all(
        take.error or take.wav.exists() for take in outputs(group, out)
    )


def synthesize_group(
    synthesizer: Synthesizer, group: Group, out: Path, slots: int, options: SynthesisOptions
) -> None:
    """Synthesize a group, by the function that all doors of `inference` use; its record is written last.

    For a line that the model refuses, the record has the reason. Any other error ends the run.

    Args:
        synthesizer: The model.
        group: The lines.
        out: The folder of the run.
        slots: How many lines are synthesized at a time.
        options: All but depth and seed.
    """
    start, options = time.perf_counter(), replace(options, depth=group.depth, seed=group.seed)
    voices = [_voice(synthesizer, line, options) for line in group.lines]
    accepted = [
        (line, voice) for line, voice in zip(group.lines, voices, strict=True) if isinstance(voice, Voice)
    ]
    results = synthesizer.synthesize_batch(
        [line.target_text for line, _ in accepted], [voice for _, voice in accepted], options, slots=slots
    )
    spoken = iter(results)
    seconds = time.perf_counter() - start
    takes = []
    for line, voice in zip(group.lines, voices, strict=True):
        record = {"utt": line.utt, "stop": None, "error": None, "seconds": 0.0}
        if isinstance(voice, ValueError):
            takes.append({**record, "error": str(voice)})
            continue
        take, wav = next(spoken), _wav(group, line, out)
        wav.parent.mkdir(parents=True, exist_ok=True)
        save_audio(wav, torch.from_numpy(take.audio), synthesizer.sample_rate, comment=AI_GENERATED)
        takes.append({**record, "stop": take.stop_reason, "seconds": take.seconds})
    path = _record(group, out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"depth": group.depth, "compute_seconds": seconds, "takes": takes})


def outputs(group: Group, out: Path) -> Iterator[Spoken]:
    """Yield the outputs of a group that `synthesize_group` has written.

    Args:
        group: The lines.
        out: The folder of the run.
    """
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
    """Return the RTF by depth: wall-clock seconds, with the encoding of new prompts, over those of audio.

    Args:
        groups: All groups of the run, complete.
        out: The folder of the run.

    Returns:
        The RTF of each depth; None where there is no audio.
    """
    spent: dict[int, float] = {}
    audible: dict[int, float] = {}
    for group in groups:
        record = json.loads(_record(group, out).read_text(encoding="utf-8"))
        seconds = sum(take["seconds"] for take in record["takes"])
        spent[group.depth] = spent.get(group.depth, 0.0) + record["compute_seconds"]
        audible[group.depth] = audible.get(group.depth, 0.0) + seconds
    return {depth: spent[depth] / audible[depth] if audible[depth] else None for depth in spent}


def _voice(synthesizer: Synthesizer, line: UtteranceLine, options: SynthesisOptions) -> Voice | ValueError:
    """Return the voice of a line, or why the model refuses the line."""
    ((prompt_text, prompt_audio),) = spoken_prompts([line])
    try:
        voice = synthesizer.load_voice(prompt_audio, prompt_text, adapt_decoder=options.adapt_decoder)
        make_plan(synthesizer, line.target_text, voice, options)
        return voice
    except ValueError as reason:
        return reason


def _record(group: Group, out: Path) -> Path:
    return out / "work" / "groups" / f"{group.number:06}.json"


def _wav(group: Group, line: UtteranceLine, out: Path) -> Path:
    return out / "wavs" / f"depth-{group.depth}" / f"seed-{group.seed}" / f"{line.utt}.wav"
