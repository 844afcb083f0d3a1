"""How well a TTS model reads and imitates, on a list in the form of Seed-TTS-Eval.

    python -m eval.tts --model FOLDER --meta meta.lst --depths 2,4,8 --seeds 1 --out results.json
    python -m eval.tts --meta meta.lst --wavs FOLDER --score-only

A line of the list is `utt|prompt_text|prompt_wav|target_text`, the prompt's path relative to the list. What
the scores mean, and that failures stay in them, says `eval.scoring`. Each take is one line of the JSONL file
beside `--out`. `--wavs` keeps the audio as `FOLDER/depth-<k>/seed-<n>/<utt>.wav`; with `--score-only` it is
a folder of files `<utt>.wav`, of any system. RTF is the time from prompt file to audio over its seconds.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from eval.assets import verify
from eval.metrics import METRIC_RATE
from eval.results import (
    add_assets_option,
    comma_separated,
    command_line,
    markdown_table,
    positive,
    require_assets,
    require_place,
    write_json,
)
from eval.scoring import Judge, Line, Output, Score, read_list, summarise
from inference import Synthesizer
from tokenizer import load_audio, save_audio
from tokenizer.audio import AI_GENERATED

logger = logging.getLogger(__name__)


def load_model(model: str | None, depths: tuple[int, ...]) -> Synthesizer:
    """The system under test.

    Raises:
        ValueError: it cannot be loaded, or lacks one of the depths.
    """
    synthesizer = Synthesizer.from_pretrained(model)
    if not all(1 <= depth <= synthesizer.max_depth for depth in depths):
        raise ValueError(f"--depths {depths}: this model has depths 1 to {synthesizer.max_depth}")
    return synthesizer


def synthesise(synthesizer: Synthesizer, line: Line, depth: int, seed: int) -> Output:
    """One take; its compute time covers everything from the prompt's file to the audio."""
    start = time.perf_counter()
    take = synthesizer.take(line.target_text, line.prompt_audio, line.prompt_text, depth=depth, seed=seed)
    return Output(
        audio=take.audio,
        sample_rate=take.sample_rate,
        stop=take.stop_reason,
        compute_seconds=time.perf_counter() - start,
    )


def read_output(path: Path) -> Output:
    """An existing file, as some system left it."""
    return Output(audio=load_audio(path, METRIC_RATE).numpy(), sample_rate=METRIC_RATE)


def attempt(make: Callable[[], Output]) -> tuple[Output | None, str | None]:
    """The output, or None and the reason: whatever goes wrong in the system under test is its failure."""
    try:
        return make(), None
    except Exception as error:
        logger.warning("failed: %s: %s", type(error).__name__, error)
        return None, f"{type(error).__name__}: {error}"


def takes_of_model(
    synthesizer: Synthesizer, options: argparse.Namespace, lines: list[Line], judge: Judge
) -> Iterator[Score]:
    """Synthesise and judge every line at every depth and seed."""
    for depth in options.depths:
        for seed in options.seeds:
            for line in lines:
                output, error = attempt(lambda at=(line, depth, seed): synthesise(synthesizer, *at))
                if output and options.wavs and len(output.audio):
                    folder = options.wavs / f"depth-{depth}" / f"seed-{seed}"
                    folder.mkdir(parents=True, exist_ok=True)
                    audio = torch.from_numpy(output.audio)
                    path = folder / f"{line.utt}.wav"
                    save_audio(path, audio, output.sample_rate, comment=AI_GENERATED)
                yield judge.score(line, output, depth, seed, error)


def takes_on_disk(folder: Path, lines: list[Line], judge: Judge) -> Iterator[Score]:
    """Judge `<utt>.wav` of every line."""
    for line in lines:
        output, error = attempt(lambda path=folder / f"{line.utt}.wav": read_output(path))
        yield judge.score(line, output, None, None, error)


def keep(scores: Iterable[Score], path: Path | None) -> list[Score]:
    """All scores, each written as a line of `path` as soon as it is there."""
    if path is None:
        return list(scores)
    kept = []
    with path.open("w", encoding="utf-8") as out:
        for score in scores:
            out.write(json.dumps(asdict(score), ensure_ascii=False) + "\n")
            out.flush()
            kept.append(score)
    return kept


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when it ran, 2 with one line on the standard error stream when it could not."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m eval.tts", description="Word errors and similarity.")
    parser.add_argument("--model", help="folder or hub id (default: the model of this repository)")
    parser.add_argument(
        "--meta", type=Path, required=True, help="list utt|prompt_text|prompt_wav|target_text"
    )
    parser.add_argument("--depths", type=comma_separated, help="such as 2,4,8")
    parser.add_argument("--seeds", type=comma_separated, default=(1,), help="such as 1,2,3 (default: 1)")
    parser.add_argument("--limit", type=positive, help="only the first so many lines")
    parser.add_argument(
        "--wavs", type=Path, help="folder to keep the audio in, or that holds it (--score-only)"
    )
    parser.add_argument(
        "--score-only", action="store_true", help="score the files of --wavs, synthesise nothing"
    )
    parser.add_argument("--out", type=Path, help="JSON file for the summary; takes go beside it as .jsonl")
    add_assets_option(parser)
    options = parser.parse_args(argv)
    if options.score_only and not options.wavs:
        parser.error("--score-only needs --wavs FOLDER")
    if not options.score_only and not options.depths:
        parser.error("--depths is needed, such as --depths 2,4,8")
    try:
        require_place(options.out)
        if options.score_only and not options.wavs.is_dir():
            raise ValueError(f"--wavs {options.wavs}: there is no such folder; name one of files <utt>.wav")
        assets = require_assets(options.assets)
        lines = read_list(options.meta)[: options.limit]
        judge = Judge(assets)
        synthesizer = None if options.score_only else load_model(options.model, options.depths)
    except (ValueError, OSError) as error:
        print(f"eval.tts: {error}", file=sys.stderr)
        return 2
    if synthesizer is None:
        depths, total = (None,), len(lines)
        scores = takes_on_disk(options.wavs, lines, judge)
    else:
        depths, total = options.depths, len(lines) * len(options.depths) * len(options.seeds)
        scores = takes_of_model(synthesizer, options, lines, judge)
    kept = keep(tqdm(scores, total=total, unit="take"), options.out and options.out.with_suffix(".jsonl"))
    summary = [summarise(kept, depth) for depth in depths]
    head = list(summary[0])
    print(markdown_table(head, [[row[name] for name in head] for row in summary]))
    if options.out:
        results = {
            "command": command_line("eval.tts", argv),
            "metric_models": verify(assets),
            "summary": summary,
        }
        write_json(options.out, results)
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(main())
