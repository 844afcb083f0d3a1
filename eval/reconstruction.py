"""How much of speech survives the tokenizer, by depth, beside Opus.

    python -m eval.reconstruction --tokenizer FOLDER --audio FOLDER-OR-MANIFEST --depths 1,2,4,8 --opus 6,12

Each file is read at the tokenizer's rate, encoded once, decoded from its first k codebooks and cut to its
length; Opus gets the same samples. The mel distance compares input and output at that rate. PESQ, STOI and
similarity (of the original with the reconstruction) run at 16 kHz against the file itself, never passed
through the tokenizer's rate. Numbers are means over the files for which a metric exists; the others are
counted beside it.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from tqdm import tqdm

from eval.assets import verify
from eval.metrics import (
    METRIC_RATE,
    MetricError,
    SpeakerEncoder,
    mel_distance,
    pesq_nb,
    pesq_wb,
    resample,
    stoi,
)
from eval.opus import HIGHEST, LOWEST, opus
from eval.results import (
    add_assets_option,
    comma_separated,
    command_line,
    markdown_table,
    mean,
    positive,
    require_assets,
    require_place,
    write_json,
)
from tokenizer import AudioError, AudioTokenizer, load_audio

METRICS = ("pesq_wb", "pesq_nb", "stoi", "similarity", "mel_distance")
SUFFIXES = {".wav", ".flac", ".ogg", ".mp3"}


def audio_files(source: Path) -> list[Path]:
    """The audio files below a folder, sorted, or those of a JSONL manifest (key `audio`), in its order.

    Raises:
        ValueError: there is none, or a line of the manifest has no `audio`.
    """
    if source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    else:
        lines = source.read_text(encoding="utf-8").splitlines()
        numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        files = [source.parent / _manifest_audio(line, f"{source}:{number}") for number, line in numbered]
    if not files:
        raise ValueError(f"{source} names no audio; give a folder of wav, flac, ogg or mp3, or a manifest")
    return files


def _manifest_audio(line: str, where: str) -> str:
    try:
        return json.loads(line)["audio"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f'{where} is no JSON object with "audio"; give a manifest or a folder') from error


@dataclass(frozen=True)
class Rebuilt:
    """What one setting of one codec made of a file."""

    setting: str
    """Such as "depth 4" or "opus 6"."""
    bitrate: float
    """bit/s."""
    audio: Float[np.ndarray, " s"]


@torch.inference_mode()
def reconstruct(
    tokenizer: AudioTokenizer, audio: Float[torch.Tensor, " s"], depths: tuple[int, ...]
) -> list[Rebuilt]:
    """Audio at the tokenizer's rate through each depth."""
    codes = tokenizer.encode(audio[None].to(next(tokenizer.parameters()).device), max(depths))
    outputs = []
    for depth in depths:
        decoded = tokenizer.decode(codes[..., :depth])[0, : len(audio)].float().cpu().numpy()
        outputs.append(Rebuilt(f"depth {depth}", tokenizer.config.bitrate(depth), decoded))
    return outputs


def settings(depths: tuple[int, ...], opus_kbps: tuple[int, ...]) -> list[str]:
    """The names of all that is measured, in order."""
    return [*(f"depth {depth}" for depth in depths), *(f"opus {kbps}" for kbps in opus_kbps)]


def measure_file(
    tokenizer: AudioTokenizer,
    encoder: SpeakerEncoder,
    path: Path,
    depths: tuple[int, ...],
    opus_kbps: tuple[int, ...] = (),
) -> list[dict]:
    """One record a setting: metrics, None where undefined, and the reasons of those under `failures`."""
    try:
        audio = load_audio(path, tokenizer.config.sample_rate)
        reference = load_audio(path, METRIC_RATE).numpy()
    except AudioError as error:
        failed = {**dict.fromkeys(METRICS), "failures": dict.fromkeys(METRICS, str(error))}
        return [{"setting": name, "bitrate": None, **failed} for name in settings(depths, opus_kbps)]
    rate, records = tokenizer.config.sample_rate, []
    outputs = reconstruct(tokenizer, audio, depths)
    for kbps in opus_kbps:
        decoded, bitrate = opus(audio.numpy(), rate, kbps)
        outputs.append(Rebuilt(f"opus {kbps}", bitrate, decoded))
    for output in outputs:
        degraded = resample(output.audio, rate)
        measures: dict[str, Callable[[], float]] = {
            "pesq_wb": lambda d=degraded: pesq_wb(reference, d, METRIC_RATE),
            "pesq_nb": lambda d=degraded: pesq_nb(reference, d, METRIC_RATE),
            "stoi": lambda d=degraded: stoi(reference, d, METRIC_RATE),
            "similarity": lambda d=degraded: encoder.similarity(reference, METRIC_RATE, d, METRIC_RATE),
            "mel_distance": lambda o=output.audio: mel_distance(audio.numpy(), o, rate),
        }
        values, failures = {}, {}
        for name in METRICS:
            try:
                values[name] = measures[name]()
            except MetricError as error:
                values[name], failures[name] = None, str(error)
        found = {"setting": output.setting, "bitrate": output.bitrate}
        records.append({**found, **values, "failures": failures})
    return records


def summarise(records: list[dict], setting: str) -> dict:
    """Means at one setting, and how many files lack each metric."""
    chosen = [record for record in records if record["setting"] == setting]
    failures = {name: sum(record[name] is None for record in chosen) for name in METRICS}
    return {
        "setting": setting,
        "bitrate": mean(record["bitrate"] for record in chosen),
        "files": len(chosen),
        **{name: mean(record[name] for record in chosen) for name in METRICS},
        "failures": {name: count for name, count in failures.items() if count},
    }


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when it ran, 2 with one line on the standard error stream when it could not."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="python -m eval.reconstruction", description="Speech through the tokenizer."
    )
    parser.add_argument("--tokenizer", required=True, help="folder or hub id of an audio tokenizer")
    parser.add_argument("--audio", type=Path, required=True, help="folder of audio files, or JSONL manifest")
    parser.add_argument("--depths", type=comma_separated, required=True, help="such as 1,2,4,8")
    parser.add_argument(
        "--opus", type=comma_separated, default=(), help="Opus beside it, kbit/s such as 6,12"
    )
    parser.add_argument("--limit", type=positive, help="only the first so many files")
    parser.add_argument("--out", type=Path, help="JSON file for the results, file by file")
    add_assets_option(parser)
    options = parser.parse_args(argv)
    try:
        require_place(options.out)
        assets = require_assets(options.assets)
        files = audio_files(options.audio)[: options.limit]
        tokenizer = AudioTokenizer.from_pretrained(options.tokenizer).eval()
        deepest = tokenizer.config.num_codebooks
        if not all(1 <= depth <= deepest for depth in options.depths):
            raise ValueError(f"--depths {options.depths}: this tokenizer has depths 1 to {deepest}")
        if not all(LOWEST <= kbps <= HIGHEST for kbps in options.opus):
            raise ValueError(f"--opus {options.opus}: choose {LOWEST:.0f} to {HIGHEST:.0f} kbit/s")
        encoder = SpeakerEncoder(assets)
    except (ValueError, OSError) as error:
        print(f"eval.reconstruction: {error}", file=sys.stderr)
        return 2
    records = []
    for path in tqdm(files, unit="file"):
        name = os.path.relpath(path, options.audio if options.audio.is_dir() else options.audio.parent)
        found = measure_file(tokenizer, encoder, path, options.depths, options.opus)
        records += [{"audio": name, **record} for record in found]
    summary = [summarise(records, setting) for setting in settings(options.depths, options.opus)]
    head = ["setting", "bitrate", "files", *METRICS, "failures"]
    print(markdown_table(head, [[row[name] for name in head] for row in summary]))
    if options.out:
        results = {
            "command": command_line("eval.reconstruction", argv),
            "metric_models": verify(assets, "campplus/"),
            "summary": summary,
            "files": records,
        }
        write_json(options.out, results)
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(main())
