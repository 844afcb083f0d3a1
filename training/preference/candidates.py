"""Let a TTS model speak, again and again: `python -m training.preference.candidates OUT --model BUNDLE
--codes FOLDER`.

A contest is a prompt, a text, and several takes of it: the codes alone, which nobody has to hear. Prompts are
utterances of the corpus, every speaker as likely; texts are what others say in it. `training.preference.dpo`
has the takes judged, and teaches the model to prefer its good ones. A run goes on where it was stopped;
several processes (`accelerate launch`) share it.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pyarrow
import torch
import tyro
from jaxtyping import Int
from pyarrow import parquet
from torch import Tensor
from tqdm import tqdm

from cat_tts import CatTTS, SamplingOptions
from cat_tts.generation.frame_decoder import Continuation, FrameDecoder
from cat_tts.generation.sampling import SAMPLING_FILE
from cat_tts.sequences.formats import opening_rows
from cat_tts.sequences.rows import join_texts, positions, speaking_pace
from cat_tts.sequences.sequence_dropout import sample_depths
from cat_tts.text.tokenizers import TextTokenizer
from tokenizer.io.checkpoint import read_config
from training.common.distributed import start
from training.common.run import StopRequest, key
from training.data.code_shards import Codes, read_codes

logger = logging.getLogger(__name__)

CONTESTS_PER_FILE = 16
SLOTS = 8
"""Takes that are made at a time."""
LONGEST, SLACK = 1.6, 12
"""A take may have so many times the frames that its text has in the corpus at the prompt's pace, and more."""


@dataclass(frozen=True, kw_only=True)
class Takes:
    """How many, of what."""

    out: Annotated[Path, tyro.conf.Positional]
    model: Path
    """A bundle; its tts/ speaks, with its sampling.json."""
    codes: Path
    """Folder of shards of its tokenizer, see training.prepare."""
    contests: int = 480
    takes: int = 6
    """Of each contest."""
    max_frames: int = 110
    """Of a prompt, and of the utterance that a text is taken from."""
    shallow: float = 0.5
    """Part of the contests at a random depth from `lowest` on; the others are at full depth."""
    lowest: int = 3
    temperature: float | None = None
    """In place of the model's own: takes should differ."""
    seed: int = 0


class Contest(NamedTuple):
    """Takes of one text in one voice. Of `prompt`, a row of the shards, as many frames are read as it has."""

    prompt: int
    text: str
    depth: int
    takes: list[Int[np.ndarray, "t k"]]
    ended: list[bool]


def contests(folder: Path) -> Iterator[Contest]:
    """All that a folder holds."""
    files = sorted(folder.glob("takes-*.parquet"))
    if not files:
        raise ValueError(f"{folder} holds no takes: make some with training.preference.candidates")
    for path in files:
        for row in parquet.read_table(path).to_pylist():
            depth = row["depth"]
            takes = [np.frombuffer(one, np.int16).reshape(-1, depth) for one in row["takes"]]
            yield Contest(row["prompt"], row["text"], depth, takes, row["ended"])


def make(options: Takes) -> None:
    """Write OUT/takes-00000.parquet and so on, each whole or not at all."""
    processes = start(unused=False)
    tts, text = CatTTS.from_pretrained(options.model / "tts")
    tts = tts.float().to(processes.device)
    sampling = SamplingOptions()
    if (options.model / SAMPLING_FILE).exists():
        sampling = read_config(SamplingOptions, options.model / SAMPLING_FILE)
    if options.temperature is not None:
        sampling = replace(sampling, temperature=options.temperature)
    corpus = Corpus(read_codes(options.codes), options.max_frames)
    options.out.mkdir(parents=True, exist_ok=True)
    decoder = FrameDecoder(tts, SLOTS)
    files = -(-options.contests // CONTESTS_PER_FILE)
    mine = range(processes.process_index, files, processes.num_processes)
    with StopRequest() as stop:
        for number in tqdm(mine, unit="file", disable=not processes.is_main_process):
            path = options.out / f"takes-{number:05d}.parquet"
            if stop:
                break
            if not path.exists():
                asked = range(
                    number * CONTESTS_PER_FILE, min(options.contests, (number + 1) * CONTESTS_PER_FILE)
                )
                drawn = [corpus.draw(options, tts.config.num_codebooks, contest) for contest in asked]
                _write(path, _speak(tts, text, decoder, corpus, sampling, options, drawn))


class Corpus:
    """Utterances that can be prompts, and texts."""

    def __init__(self, codes: Codes, max_frames: int) -> None:
        self.codes = codes
        usable = (np.array(codes["frames"][:]) <= max_frames) & (np.array(codes["text"][:]) != "")
        if not usable.any():
            raise ValueError(f"no utterance has a text and at most {max_frames} frames: give more max-frames")
        self.usable = np.flatnonzero(usable)
        _, self.speaker = np.unique(np.array(codes["speaker"][:])[self.usable], return_inverse=True)

    def draw(self, options: Takes, full: int, contest: int) -> Contest:
        """Nothing of it is spoken yet."""
        draw = np.random.default_rng((options.seed, contest))
        speaker = draw.integers(self.speaker.max() + 1)
        prompt = int(draw.choice(self.usable[self.speaker == speaker]))
        said = self.codes[int(draw.choice(self.usable))]["text"]
        generator = torch.Generator().manual_seed(key(options.seed, contest))
        depth = int(sample_depths(1, full, options.shallow, generator, lowest=options.lowest))
        return Contest(prompt, said, depth, [], [])


def _speak(
    tts: CatTTS,
    text: TextTokenizer,
    decoder: FrameDecoder,
    corpus: Corpus,
    sampling: SamplingOptions,
    options: Takes,
    drawn: list[Contest],
) -> list[Contest]:
    """The same contests with their takes, of which as many are made at a time as there are slots."""
    waiting = [(contest, take) for contest in range(len(drawn)) for take in range(options.takes)][::-1]
    made: dict[tuple[int, int], list[Tensor]] = {}
    ended: dict[tuple[int, int], bool] = {}
    inside: dict[int, tuple[int, int]] = {}
    openings = [opening(tts, text, corpus.codes, one, sampling) for one in drawn]
    while waiting or inside:
        while waiting and decoder.free:
            contest, take = waiting.pop()
            own = replace(openings[contest], seed=key(options.seed, drawn[contest].prompt, take) >> 1)
            inside[decoder.join(own)] = contest, take
        for slot, row in decoder.step().items():
            place = inside[slot]
            over = int(row[0]) == tts.config.tokens.audio_end
            if not over:
                made.setdefault(place, []).append(row[1:])
            if slot not in decoder.active:
                ended[inside.pop(slot)] = over
    count = range(options.takes)
    return [
        one._replace(
            takes=[torch.stack(made[i, n]).numpy().astype(np.int16) for n in count if (i, n) in made],
            ended=[ended[i, n] for n in count if (i, n) in made],
        )
        for i, one in enumerate(drawn)
    ]


def opening(
    tts: CatTTS, text: TextTokenizer, codes: Codes, contest: Contest, sampling: SamplingOptions
) -> Continuation:
    """What the model continues in each take of a contest."""
    config, prompt = tts.config, codes[contest.prompt]
    heard = torch.tensor(prompt["codes"], dtype=torch.long)
    rows = opening_rows(config, text, join_texts(prompt["text"], contest.text), heard)
    pace = speaking_pace(config, text.encode(prompt["text"]), len(heard))
    usual = len(heard) / max(1, len(prompt["text"])) * len(contest.text)
    return Continuation(
        rows=rows,
        positions=positions(config, rows, pace),
        depth=contest.depth,
        seed=0,
        options=sampling,
        max_frames=int(LONGEST * usual) + SLACK,
    )


def _write(path: Path, made: list[Contest]) -> None:
    rows = [{**one._asdict(), "takes": [take.tobytes() for take in one.takes]} for one in made]
    temporary = path.with_suffix(".tmp")
    parquet.write_table(pyarrow.Table.from_pylist(rows), temporary, compression="zstd")
    os.replace(temporary, path)


def main(argv: list[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    make(tyro.cli(Takes, args=argv, description=__doc__))


if __name__ == "__main__":
    main()
