r"""Measure the quality of speech, sound and music after a codec, by bitrate.

    python -m eval.reconstruction --tokenizer FOLDER --depths 1,2,4,8 --audio FOLDER --out NAME.json
    python -m eval.reconstruction --codec mimi=kyutai/mimi@8,18,32 --opus 6,12 --mp3 16,32 \
        --audio MANIFEST --kinds speech,sound,music --out NAME.json --figure NAME.png

Each codec gets a file at its sample rate, and its output is cut to the file's length. PESQ, STOI and
similarity (of the original with the reconstruction) are measured for speech, at 16 kHz, against the file
itself; the spectral distances for everything, at 24 kHz. Numbers are means over the files for which a metric
exists; the others are counted beside it, with the reason. A run that was killed resumes where it was when the
command is repeated.
"""

import argparse
import hashlib
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from eval.assets import verify
from eval.common.journal import Journal
from eval.common.recordings import KINDS, chosen, recordings
from eval.common.results import (
    add_assets_option,
    comma_separated,
    command_line,
    positive,
    require_assets,
    require_place,
    write_results,
)
from eval.metrics.audio import SpeakerEncoder
from eval.metrics.wavlm_speaker import WavLMSpeakerEncoder
from eval.reconstruction.codecs import CatCodec, Codec, PlainCodec, load_transformers_codec
from eval.reconstruction.measure import Encoder, measure_file
from eval.reconstruction.mp3 import KBPS, mp3
from eval.reconstruction.opus import HIGHEST, LOWEST, opus
from eval.reconstruction.plot import draw
from eval.reconstruction.tables import codebook_tables, failure_table, full_table, paper_tables, summarize
from tokenizer import AudioTokenizer


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model of the command line, given as `[NAME=]PLACE[@DEPTHS]`."""

    name: str
    place: str
    depths: tuple[int, ...]


def model_option(text: str) -> Model:
    """Parse `[NAME=]PLACE[@DEPTHS]`, for argparse.

    Args:
        text: The argument; the name is the place where none is given.

    Returns:
        The model; its depths are empty where none are given.

    Raises:
        ArgumentTypeError: If the name or the place is empty, or the depths are no whole numbers.
    """
    place, at, depths = text.rpartition("@")
    if not at or "/" in depths:
        place, depths = text, ""
    name, equals, rest = place.partition("=")
    name, place = (name, rest) if equals else (place, place)
    if not name or not place:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PLACE@DEPTHS such as mimi=kyutai/mimi@8,32")
    return Model(name=name, place=place, depths=comma_separated(depths) if depths else ())


def load_codecs(options: argparse.Namespace) -> list[Codec]:
    """Load all codecs that the command line names.

    Args:
        options: The options of the command line.

    Returns:
        Our tokenizers first, then codecs of `transformers`, Opus and MP3.

    Raises:
        ValueError: If nothing is named, one is named twice, or one lacks a depth or rate that is given.
        OSError: If a model cannot be read.
    """
    codecs: list[Codec] = []
    for model in options.tokenizer:
        tokenizer = AudioTokenizer.from_pretrained(model.place).eval().to(options.device)
        codecs.append(CatCodec(model.name, tokenizer, model.depths or options.depths))
    for model in options.codec:
        depths = model.depths or options.depths
        codecs.append(load_transformers_codec(model.name, model.place, depths, options.device))
    if not all(LOWEST <= kbps <= HIGHEST for kbps in options.opus):
        raise ValueError(f"--opus {options.opus}: choose {LOWEST:.0f} to {HIGHEST:.0f} kbit/s")
    if not all(kbps in KBPS for kbps in options.mp3):
        raise ValueError(f"--mp3 {options.mp3}: choose of {', '.join(map(str, KBPS))} kbit/s")
    codecs += [PlainCodec("opus", opus, options.opus)] if options.opus else []
    codecs += [PlainCodec("mp3", mp3, options.mp3)] if options.mp3 else []
    names = [setting.name for codec in codecs for setting in codec.settings]
    if not names:
        raise ValueError("nothing to measure: name a codec with --tokenizer, --codec, --opus or --mp3")
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{', '.join(sorted(twice))}: given twice; tell them apart with NAME=PLACE")
    return codecs


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the options of the command line.

    Args:
        argv: The arguments after the name of the module.
    """
    parser = argparse.ArgumentParser(
        prog="python -m eval.reconstruction", description="Speech, sound and music through codecs."
    )
    place = "[NAME=]PLACE[@DEPTHS]"
    about = "folder or hub id of an audio tokenizer of this project or of the published layout"
    parser.add_argument(
        "--tokenizer", type=model_option, action="append", default=[], metavar=place, help=about
    )
    about = "folder or hub id of a codec of transformers (EnCodec, DAC, Mimi, ...)"
    parser.add_argument("--codec", type=model_option, action="append", default=[], metavar=place, help=about)
    parser.add_argument("--depths", type=comma_separated, default=(), help="where none are given, as 1,2,4,8")
    parser.add_argument("--opus", type=comma_separated, default=(), help="Opus beside it, kbit/s as 6,12")
    parser.add_argument("--mp3", type=comma_separated, default=(), help="MP3 beside it, kbit/s as 16,32")
    parser.add_argument("--audio", type=Path, required=True, help="folder of audio files, or JSONL manifest")
    about = "kinds to measure, of a manifest's; the first is that of files whose kind nobody tells"
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=["speech"], help=about)
    parser.add_argument("--limit", type=positive, help="at most so many files of a kind, evenly spread")
    parser.add_argument("--seconds", type=float, help="only the first so many seconds of a file")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, for the models")
    parser.add_argument("--wavlm", type=Path, help="wavlm_large_finetune.pth: SIM as papers report it")
    parser.add_argument("--out", type=Path, help="JSON file for the results, file by file")
    parser.add_argument("--figure", type=Path, help="picture of quality over bitrate to write")
    add_assets_option(parser)
    return parser.parse_args(argv)


def load_encoder(options: argparse.Namespace) -> tuple[str, Encoder, dict[str, str]]:
    """Load the speaker encoder that measures similarity.

    Args:
        options: The options of the command line.

    Returns:
        The name of the similarity, the encoder, and the checksums of its files.

    Raises:
        ValueError: If there are neither assets nor a checkpoint.
        OSError: If the checkpoint cannot be read.
    """
    if options.wavlm is None:
        assets = require_assets(options.assets)
        return "CAM++", SpeakerEncoder(assets), verify(assets, "campplus/")
    with options.wavlm.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return "WavLM-large", WavLMSpeakerEncoder(options.wavlm), {options.wavlm.name: checksum}


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when it ran, 2 with one line on the standard error stream when it could not."""
    argv = sys.argv[1:] if argv is None else argv
    options, command = parse(argv), command_line("eval.reconstruction", argv)
    try:
        require_place(options.out)
        require_place(options.figure)
        if unknown := [kind for kind in options.kinds if kind not in KINDS]:
            raise ValueError(f"--kinds {','.join(unknown)}: choose of {', '.join(KINDS)}")
        found = chosen(recordings(options.audio, options.kinds[0]), options.kinds, options.limit)
        codecs = load_codecs(options)
        similarity, encoder, checksums = load_encoder(options)
        partial = options.out and options.out.with_suffix(".partial.jsonl")
        journal = Journal(partial, {"command": command, "metric_models": checksums})
    except (ValueError, OSError) as error:
        print(f"eval.reconstruction: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for recording in tqdm(found, unit="file"):
        if recording.name not in journal.done:
            journal.append(recording.name, measure_file(codecs, encoder, recording, options.seconds))
    measured = [journal.done[recording.name] for recording in found]
    records = [
        {"audio": recording.name, **record}
        for recording, of_file in zip(found, measured, strict=True)
        for record in of_file["records"]
    ]
    settings = [setting for codec in codecs for setting in codec.settings]
    summary = [summarize(records, setting, kind) for setting in settings for kind in options.kinds]
    tables = [*paper_tables(summary, similarity), *(full_table(summary, kind) for kind in options.kinds)]
    tables += [failure_table(records), *codebook_tables([of_file["codes"] for of_file in measured])]
    for table in tables:
        print(f"{table.title}\n\n{table.markdown}\n")
    if options.figure:
        draw(options.figure, summary, similarity)
    if options.out:
        details = {"metric_models": checksums, "similarity": similarity, "summary": summary, "files": records}
        figures = [options.figure] if options.figure else []
        write_results(options.out, command, tables, figures, details)
        journal.finish()
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(main())
