"""Generate several candidates of each text, for preference training.

    python -m training.preference.candidates OUT --model BUNDLE --codes FOLDER

A comparison is a prompt, a text, and several candidates: codes that the model generated for it, which are
never decoded to audio. Prompts are utterances of the corpus, drawn with every speaker equally likely; texts
are those of other utterances. `training.preference.dpo` ranks the candidates with an ASR model and trains the
TTS model to prefer the good ones. An interrupted run continues where it stopped; several processes
(`accelerate launch`) share the work.
"""

import logging
import os
import sys
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
from cat_tts.generation.continuation import Continuation
from cat_tts.generation.frame_decoder import FrameDecoder
from cat_tts.generation.sampling import SAMPLING_FILE
from cat_tts.sequences.formats import build_prompt
from cat_tts.sequences.sequence_dropout import sample_depths
from cat_tts.text.tokenizers import TextTokenizer
from tokenizer.io.checkpoint import read_config
from training.common.distributed import start
from training.common.renamed_options import rename_options
from training.common.run import StopRequest, key
from training.data.code_shards import Codes, read_codes

logger = logging.getLogger(__name__)

RENAMED_OPTIONS = {"--contests": "--comparisons", "--takes": "--candidates"}
COMPARISONS_PER_FILE = 16
SLOTS = 8
"""Candidates that are generated at the same time."""
MAX_LENGTH_RATIO, EXTRA_FRAMES = 1.6, 12
"""A candidate has at most so many times the frames expected at the prompt's speaking rate, plus so many."""


@dataclass(frozen=True, kw_only=True)
class CandidateOptions:
    """How many candidates to generate, with which model, of which texts."""

    out: Annotated[Path, tyro.conf.Positional]
    model: Path
    """A bundle: its tts/ generates, with its sampling.json."""
    codes: Path
    """Folder of code shards of the bundle's tokenizer, see training.prepare."""
    comparisons: int = 480
    candidates: int = 6
    """Candidates of each comparison."""
    max_frames: int = 110
    """Longest prompt, and longest utterance whose text is used."""
    shallow: float = 0.5
    """Part of the comparisons at a random depth, `lowest` or more; the others are at full depth."""
    lowest: int = 3
    temperature: float | None = None
    """Replaces the model's own temperature, since candidates should differ."""
    seed: int = 0


class Comparison(NamedTuple):
    """Candidates of one text in one voice."""

    prompt: int
    """Index of the prompt's utterance in the shards; its codes are used up to `depth` codebooks."""
    text: str
    depth: int
    """Number of codebooks."""
    candidates: list[Int[np.ndarray, "t k"]]
    ended: list[bool]
    """Whether each candidate ended by itself, rather than at the limit on its length."""


def read_comparisons(folder: Path) -> Iterator[Comparison]:
    """Yield all comparisons that `generate_candidates` wrote into a folder.

    Raises:
        ValueError: the folder holds none.
    """
    files = sorted(folder.glob("candidates-*.parquet"))
    if not files:
        raise ValueError(f"{folder} holds no candidates: generate some with training.preference.candidates")
    for path in files:
        for row in parquet.read_table(path).to_pylist():
            depth = row["depth"]
            candidates = [np.frombuffer(data, np.int16).reshape(-1, depth) for data in row["candidates"]]
            yield Comparison(row["prompt"], row["text"], depth, candidates, row["ended"])


def generate_candidates(options: CandidateOptions) -> None:
    """Write OUT/candidates-00000.parquet and so on, each whole or not at all; existing files are left alone.

    Raises:
        ValueError: no utterance of the shards has a text and at most `max_frames` frames.
    """
    processes = start(unused=False)
    tts, text_tokenizer = CatTTS.from_pretrained(options.model / "tts")
    tts = tts.float().to(processes.device)
    sampling = SamplingOptions()
    if (options.model / SAMPLING_FILE).exists():
        sampling = read_config(SamplingOptions, options.model / SAMPLING_FILE)
    if options.temperature is not None:
        sampling = replace(sampling, temperature=options.temperature)
    corpus = ComparisonCorpus(read_codes(options.codes), options.max_frames)
    options.out.mkdir(parents=True, exist_ok=True)
    decoder = FrameDecoder[tuple[int, int]](tts, SLOTS)
    files = -(-options.comparisons // COMPARISONS_PER_FILE)
    mine = range(processes.process_index, files, processes.num_processes)
    with StopRequest() as stop:
        for number in tqdm(mine, unit="file", disable=not processes.is_main_process):
            path = options.out / f"candidates-{number:05d}.parquet"
            if stop:
                break
            if not path.exists():
                first, end = number * COMPARISONS_PER_FILE, (number + 1) * COMPARISONS_PER_FILE
                numbers = range(first, min(options.comparisons, end))
                drawn = [corpus.draw(options, tts.config.num_codebooks, i) for i in numbers]
                _write(path, _generate(tts, text_tokenizer, decoder, corpus, sampling, options, drawn))


class ComparisonCorpus:
    """The utterances of a corpus that can serve as prompts and texts.

    Args:
        codes: the corpus's code shards.
        max_frames: longer utterances are not used.

    Raises:
        ValueError: no utterance has a text and at most `max_frames` frames.
    """

    def __init__(self, codes: Codes, max_frames: int) -> None:
        self.codes = codes
        usable = (np.array(codes["frames"][:]) <= max_frames) & (np.array(codes["text"][:]) != "")
        if not usable.any():
            raise ValueError(f"no utterance has a text and at most {max_frames} frames: give more max-frames")
        self.usable = np.flatnonzero(usable)
        _, self.speaker = np.unique(np.array(codes["speaker"][:])[self.usable], return_inverse=True)

    def draw(self, options: CandidateOptions, full: int, number: int) -> Comparison:
        """Draw prompt, text and depth of a comparison, which has no candidates yet.

        Args:
            options: seed, and how depths are drawn.
            full: the model's number of codebooks.
            number: the comparison's; with the seed it decides everything that is drawn.
        """
        draw = np.random.default_rng((options.seed, number))
        speaker = draw.integers(self.speaker.max() + 1)
        prompt = int(draw.choice(self.usable[self.speaker == speaker]))
        text = self.codes[int(draw.choice(self.usable))]["text"]
        generator = torch.Generator().manual_seed(key(options.seed, number))
        depth = int(sample_depths(1, full, options.shallow, generator, lowest=options.lowest))
        return Comparison(prompt, text, depth, [], [])


def _generate(
    tts: CatTTS,
    text_tokenizer: TextTokenizer,
    decoder: FrameDecoder[tuple[int, int]],
    corpus: ComparisonCorpus,
    sampling: SamplingOptions,
    options: CandidateOptions,
    drawn: list[Comparison],
) -> list[Comparison]:
    """Return the comparisons with their candidates, generated in as many slots as the decoder has."""
    waiting = [(number, i) for number in range(len(drawn)) for i in range(options.candidates)][::-1]
    frames: dict[tuple[int, int], list[Tensor]] = {}
    ended: dict[tuple[int, int], bool] = {}
    continuations = [
        build_continuation(tts, text_tokenizer, corpus.codes, comparison, sampling) for comparison in drawn
    ]
    while waiting or decoder.active:
        while waiting and decoder.free:
            number, i = waiting.pop()
            seed = key(options.seed, drawn[number].prompt, i) >> 1
            decoder.join(replace(continuations[number], seed=seed), (number, i))
        for sequence in decoder.step():
            if not sequence.stopped:
                frames.setdefault(sequence.owner, []).append(sequence.row[1:])
            if sequence.ended:
                decoder.leave(sequence)
                ended[sequence.owner] = sequence.stopped
    count = range(options.candidates)
    return [
        comparison._replace(
            candidates=[
                torch.stack(frames[number, i]).numpy().astype(np.int16)
                for i in count
                if (number, i) in frames
            ],
            ended=[ended[number, i] for i in count if (number, i) in frames],
        )
        for number, comparison in enumerate(drawn)
    ]


def build_continuation(
    tts: CatTTS,
    text_tokenizer: TextTokenizer,
    codes: Codes,
    comparison: Comparison,
    sampling: SamplingOptions,
) -> Continuation:
    """Return the sequence that the model continues for each candidate of a comparison; its seed is 0.

    Args:
        tts: the model.
        text_tokenizer: the model's text tokenizer.
        codes: the code shards that hold the prompt.
        comparison: prompt, text and depth.
        sampling: how codes are sampled.
    """
    config, prompt = tts.config, codes[comparison.prompt]
    prompt_codes = torch.tensor(prompt["codes"], dtype=torch.long)
    sequence = build_prompt(config, text_tokenizer, comparison.text, prompt_codes, prompt_text=prompt["text"])
    expected = len(prompt_codes) / max(1, len(prompt["text"])) * len(comparison.text)
    return Continuation(
        rows=sequence.rows,
        positions=sequence.positions,
        depth=comparison.depth,
        seed=0,
        options=sampling,
        max_frames=int(MAX_LENGTH_RATIO * expected) + EXTRA_FRAMES,
    )


def _write(path: Path, comparisons: list[Comparison]) -> None:
    rows = [
        {**comparison._asdict(), "candidates": [codes.tobytes() for codes in comparison.candidates]}
        for comparison in comparisons
    ]
    temporary = path.with_suffix(".tmp")
    parquet.write_table(pyarrow.Table.from_pylist(rows), temporary, compression="zstd")
    os.replace(temporary, path)


def main(argv: list[str] | None = None) -> None:
    """Run the command line: `python -m training.preference.candidates --help`."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = rename_options(sys.argv[1:] if argv is None else argv, RENAMED_OPTIONS)
    generate_candidates(tyro.cli(CandidateOptions, args=arguments, description=__doc__))


if __name__ == "__main__":
    main()
