"""Everything that a machine without network needs to make the default voice's corpus, in one folder.

    python -m training.payload FOLDER --kokoro KOKORO --hours 50 --human SPEECH
    python -m training.pieces cut FOLDER PIECES

Made where there are dictionaries: script.jsonl holds texts, phonemes and pseudo-speakers, FOLDER/teacher
the model with every eighth row of its voices, FOLDER/speech the real speech as Opus, and FOLDER/payload.json
what it is. `training.default_voice` takes the folder or its pieces.
"""

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
from safetensors.torch import load_file, save_file

from tokenizer.audio import load_audio
from tokenizer.checkpoint import read_config, write_config
from training.corpus import TYPICAL
from training.manifest import read_manifest, write_manifest
from training.script import deal, write_script
from training.teacher_kokoro import CONFIG, VOICES, WEIGHTS
from training.teachers import TeacherChoice
from training.texts import WORDNET, utterances

logger = logging.getLogger(__name__)

INFO, SCRIPT, SPEECH, TEACHER = "payload.json", "script.jsonl", "speech", "teacher"
EVERY = 8
"""Of a voice's 510 rows, about one in so many is kept; those between are interpolated (error 0.2 %)."""
OPUS_RATE = 24_000
OPUS_COMPRESSION = 0.93
"""libsndfile's scale from 0 (256 kbit/s) to 1 (6 kbit/s): about 24 kbit/s for mono."""


@dataclass(frozen=True, kw_only=True)
class Payload:
    """What a folder holds."""

    hours: float
    """For which the script has lines, at the length of a typical clip."""
    lines: int
    speakers: int
    seed: int
    teacher: str


def make(
    out: Path,
    *,
    hours: float,
    kokoro: Path | None,
    speakers: int = 400,
    human: Iterable[Path] = (),
    texts: Path = WORDNET,
    seed: int = 0,
) -> Payload:
    """Write the folder; without `kokoro`, the teacher is hibari, which the other end must have installed."""
    if hours <= 0:
        raise ValueError(f"hours={hours}: give how much synthetic speech is to be made, more than 0")
    choice = TeacherChoice(name="kokoro" if kokoro else "hibari", folder=kokoro, speakers=speakers)
    out.mkdir(parents=True, exist_ok=True)
    inventory = choice.inventory(seed)
    count = round(1.1 * hours * 3600 / TYPICAL)  # some come out too short or too long
    lines = list(islice(deal(utterances(texts, seed), inventory, choice.spell, seed), count))
    write_script(out / SCRIPT, lines)
    if kokoro:
        _copy_teacher(kokoro, out / TEACHER)
    _copy_speech(human, out / SPEECH)
    info = Payload(hours=hours, lines=len(lines), speakers=len(inventory), seed=seed, teacher=choice.name)
    write_config(out / INFO, info)
    return info


def read(folder: Path) -> Payload:
    """What is in the folder."""
    if not (folder / INFO).is_file():
        raise ValueError(f"{folder} holds no {INFO}: make a payload with `python -m training.payload`")
    return read_config(Payload, folder / INFO)


def teacher_of(folder: Path, device: str) -> list[str]:
    """Options of `training.corpus` for the payload's teacher."""
    if read(folder).teacher == "hibari":
        return ["--teacher", "hibari"]
    return ["--teacher", "kokoro", "--kokoro", str(folder / TEACHER), "--device", device]


def _copy_teacher(kokoro: Path, out: Path) -> None:
    out.mkdir(exist_ok=True)
    shutil.copy(kokoro / WEIGHTS, out / WEIGHTS)
    shutil.copy(kokoro / CONFIG, out / CONFIG)
    rows = np.linspace(0, 509, 510 // EVERY + 2).round().astype(int)
    voices = {name: voice[rows].contiguous() for name, voice in load_file(kokoro / VOICES).items()}
    save_file(voices, out / VOICES)


def _copy_speech(folders: Iterable[Path], out: Path) -> None:
    """All clips as mono Opus at 24 kHz, under one manifest."""
    out.mkdir(exist_ok=True)
    clips = []
    for folder in folders:
        for clip in read_manifest(folder / "manifest.jsonl"):
            target = out / folder.name / f"{clip.audio.stem}.opus"
            target.parent.mkdir(exist_ok=True)
            if not target.exists():
                audio = load_audio(clip.audio, OPUS_RATE).numpy()
                temporary = target.with_suffix(".tmp")
                soundfile.write(
                    temporary,
                    audio,
                    OPUS_RATE,
                    format="OGG",
                    subtype="OPUS",
                    compression_level=OPUS_COMPRESSION,
                )
                temporary.replace(target)
            clips.append(replace(clip, audio=target))
    write_manifest(out / "manifest.jsonl", clips)


def main(argv: list[str] | None = None) -> None:
    """Command line; one line on stderr and exit code 2 on a mistake."""
    parser = argparse.ArgumentParser(
        description="Prepare the corpus of the default voice for a bare machine."
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--hours", type=float, required=True, help="of synthetic speech")
    parser.add_argument("--kokoro", type=Path, help="the teacher's folder, see training.kokoro; else hibari")
    parser.add_argument("--speakers", type=int, default=400)
    parser.add_argument("--human", type=Path, action="append", default=[], help="real speech; repeatable")
    parser.add_argument("--texts", type=Path, default=WORDNET)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args(argv))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        info = make(options.pop("out"), **options)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    logger.info("%s", json.dumps(asdict(info)))


if __name__ == "__main__":
    main()
