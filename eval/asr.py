"""Measure the errors of CAT-ASR by depth, beside those of a recognizer of audio.

    python -m eval.asr --model FOLDER --tokenizer FOLDER --manifest FILE --depths 1,4,12 --out results.json
    python -m eval.asr --model FOLDER --codes FOLDER --depths 12

Clips are those of a manifest, the prompts of a list in the form of Seed-TTS-Eval (`--meta`), or shards of
codes. Whisper base transcribes English audio and its reconstruction at each depth, which bounds what any
recognizer of codes can reach.

English: word errors after Whisper's English normalizer (primary), and of lower-case text split at spaces
(secondary). Chinese: character errors of simplified text with numbers spelt out, without punctuation and
spaces. All rates are micro averages, errors over all words of the references (paper Appendix E and the
benchmarks that it cites). A clip that fails stays in, with all its words deleted. The transcripts are the
lines of a JSONL file beside `--out`.
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from cat_tts.asr.beam_search import transcribe
from cat_tts.asr.model import CatASR
from cat_tts.text.tokenizers import TextTokenizer
from eval.assets import verify
from eval.common.results import (
    Table,
    add_assets_option,
    comma_separated,
    command_line,
    markdown_table,
    positive,
    require_assets,
    require_place,
    write_results,
)
from eval.metrics.audio import METRIC_RATE, Transcriber
from eval.metrics.transcripts import TranscriptErrors, count_errors, rate
from eval.seed_tts.utterance_list import read_list, spoken_prompts
from tokenizer import AudioError, AudioTokenizer, load_audio
from training.data.code_shards import read_codes
from training.data.manifest import read_manifest

logger = logging.getLogger(__name__)

BATCH = 16
"""Utterances that are transcribed in one batch."""
HEAD = ("system", "reads", "depth", "clips", "failures", "wer", "wer_lower_case", "cer")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One clip to be transcribed."""

    utt: str
    text: str
    language: str
    audio: Path | None
    codes: Tensor | None
    """[t, k] at full depth; None where the audio could not be read."""
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Transcribed:
    """One transcript and its errors."""

    utt: str
    system: str
    reads: str
    """codes, original, or reconstruction."""
    depth: int | None
    language: str
    text: str
    transcript: str
    errors: TranscriptErrors
    error: str | None
    """Why there is no transcript."""


def items_of_audio(options: argparse.Namespace, tokenizer: AudioTokenizer) -> list[Item]:
    """Read and encode the clips of `--manifest` or `--meta`."""
    if options.meta:
        lines = read_list(options.meta)
        pairs = zip(lines, spoken_prompts(lines), strict=True)
        named = [(line.utt, text, "en", path) for line, (text, path) in pairs]
    else:
        clips = [clip for clip in read_manifest(options.manifest) if clip.text and clip.task == "asr"]
        named = [(clip.audio.stem, clip.text or "", clip.language, clip.audio) for clip in clips]
    items = []
    for utt, text, language, path in tqdm(named[: options.limit], desc="encode"):
        codes, error = None, None
        try:
            audio = load_audio(path, tokenizer.config.sample_rate)
            codes = tokenizer.encode(audio[None].to(options.device))[0].cpu()
        except AudioError as reason:
            error = str(reason)
        items.append(Item(utt=utt, text=text, language=language, audio=path, codes=codes, error=error))
    return items


def items_of_codes(folder: Path, limit: int | None) -> list[Item]:
    """Read the first `limit` utterances of a folder of shards of codes; None for all."""
    codes = read_codes(folder)
    rows = [codes[i] for i in range(min(len(codes), limit or len(codes)))]
    return [
        Item(
            utt=f"{i:06d}",
            text=row["text"],
            language=row["language"],
            audio=None,
            codes=torch.tensor(row["codes"], dtype=torch.long),
        )
        for i, row in enumerate(rows)
    ]


def cat_asr(
    model: CatASR, text_tokenizer: TextTokenizer, items: list[Item], depth: int, beams: int
) -> Iterator[tuple[Item, str, str | None]]:
    """Transcribe items with CAT-ASR; yield item, transcript, and error or None.

    Args:
        model: The recognizer of codes, which gets batches of similar length.
        text_tokenizer: The tokenizer of its transcripts.
        items: The clips; those without codes come first, with an error.
        depth: The number of codebooks that it reads.
        beams: The number of beams; 1 is greedy.
    """
    there = [item for item in items if item.codes is not None and len(item.codes)]
    for item in items:
        if item not in there:
            yield item, "", item.error or "there is no frame"
    there.sort(key=lambda item: len(item.codes) if item.codes is not None else 0)
    for first in range(0, len(there), BATCH):
        group = there[first : first + BATCH]
        codes = [item.codes for item in group if item.codes is not None]
        for item, found in zip(group, transcribe(model, codes, depth=depth, beams=beams), strict=True):
            yield item, text_tokenizer.decode(found.ids), None


def whisper(
    transcriber: Transcriber, tokenizer: AudioTokenizer, items: list[Item], depth: int | None
) -> Iterator[tuple[Item, str, str | None]]:
    """Transcribe items as `cat_asr` does, from audio: reconstructions, or originals where depth is None."""
    device = next(tokenizer.parameters()).device
    for item in items:
        if item.audio is None or item.codes is None:
            yield item, "", item.error
        elif depth is None:
            yield item, transcriber(load_audio(item.audio, METRIC_RATE).numpy(), METRIC_RATE), None
        else:
            audio = tokenizer.decode(item.codes[None, :, :depth].to(device))[0]
            yield item, transcriber(audio.cpu().numpy(), tokenizer.config.sample_rate), None


def systems(
    options: argparse.Namespace,
    items: list[Item],
    model: tuple[CatASR, TextTokenizer] | None,
    tokenizer: AudioTokenizer | None,
    transcriber: Transcriber | None,
) -> Iterator[Transcribed]:
    """Yield the transcripts of all systems, in the order of the table."""

    def transcribed(system: str, reads: str, depth: int | None, found: Iterator) -> Iterator[Transcribed]:
        for item, transcript, error in found:
            yield Transcribed(
                utt=item.utt,
                system=system,
                reads=reads,
                depth=depth,
                language=item.language,
                text=item.text,
                transcript=transcript,
                errors=count_errors(item.text, transcript, item.language),
                error=error,
            )

    english = [item for item in items if item.language == "en"]
    if model is not None:
        name = f"CAT-ASR, {'greedy' if options.beams == 1 else f'beam {options.beams}'}"
        for depth in options.depths:
            yield from transcribed(name, "codes", depth, cat_asr(*model, items, depth, options.beams))
    if transcriber is not None and tokenizer is not None and english:
        yield from transcribed(
            "Whisper base", "original", None, whisper(transcriber, tokenizer, english, None)
        )
        for depth in options.depths:
            found = whisper(transcriber, tokenizer, english, depth)
            yield from transcribed("Whisper base", "reconstruction", depth, found)


def summarize(kept: list[Transcribed]) -> list[list[object]]:
    """Return a row of `HEAD` for each system and depth."""
    rows: list[list[object]] = []
    for which in dict.fromkeys((one.system, one.reads, one.depth) for one in kept):
        chosen = [one for one in kept if (one.system, one.reads, one.depth) == which]
        errors = [one.errors for one in chosen]
        failures = sum(one.error is not None for one in chosen)
        rates = [rate(errors, kind) for kind in ("words", "lower_case", "characters")]
        rows.append([*which, len(chosen), failures, *rates])
    return rows


def keep(found: Iterable[Transcribed], path: Path | None) -> list[Transcribed]:
    """Return all transcripts; write each as a line of `path`, if it is given, as soon as it is there."""
    kept = []
    out = path.open("w", encoding="utf-8") if path else None
    try:
        for one in found:
            kept.append(one)
            if out:
                out.write(json.dumps(asdict(one), ensure_ascii=False) + "\n")
                out.flush()
    finally:
        if out:
            out.close()
    return kept


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.asr", description="Word errors of CAT-ASR.")
    parser.add_argument("--model", help="folder or hub id of a CatASR (without: the recognizer alone)")
    parser.add_argument("--tokenizer", help="folder or hub id of the AudioTokenizer whose codes it reads")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--manifest", type=Path, help="JSONL manifest of clips with texts")
    source.add_argument("--meta", type=Path, help="list utt|prompt_text|prompt_wav|target_text: its prompts")
    source.add_argument("--codes", type=Path, help="folder of shards of python -m training.prepare")
    parser.add_argument("--depths", type=comma_separated, required=True, help="such as 1,4,12")
    parser.add_argument("--beams", type=positive, default=1, help="beams of CAT-ASR (default: 1, greedy)")
    parser.add_argument("--limit", type=positive, help="only the first so many clips")
    parser.add_argument("--title", default="Transcription", help="title of the table")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-whisper", action="store_true", help="leave the recognizer of audio out")
    parser.add_argument("--out", type=Path, help="JSON file; transcripts go beside it as .jsonl")
    add_assets_option(parser)
    options = parser.parse_args(argv)
    if not options.codes and not options.tokenizer:
        parser.error("--manifest and --meta need --tokenizer FOLDER")
    return options


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when it ran, 2 with one line on the standard error stream when it could not."""
    argv = sys.argv[1:] if argv is None else argv
    options = arguments(argv)
    assets = model = tokenizer = transcriber = None
    try:
        require_place(options.out)
        if not options.codes:
            tokenizer = AudioTokenizer.from_pretrained(options.tokenizer).to(options.device)
            if not options.no_whisper:
                assets = require_assets(options.assets)
                transcriber = Transcriber(assets)
        if options.model:
            asr, text = CatASR.from_pretrained(options.model)
            model = asr.to(options.device), text
        elif transcriber is None:
            raise ValueError("nothing to measure: give --model, or audio for the recognizer")
        readers = [one.config.num_codebooks for one in (model and model[0], tokenizer) if one]
        if not all(1 <= depth <= min(readers) for depth in options.depths):
            raise ValueError(f"--depths {options.depths}: choose 1 to {min(readers)}")
        if options.codes:
            items = items_of_codes(options.codes, options.limit)
        else:
            assert tokenizer is not None
            items = items_of_audio(options, tokenizer)
        if not items:
            raise ValueError("there is no clip with a text")
        for item in items:
            count_errors(item.text, "", item.language)
    except (ValueError, OSError) as error:
        print(f"eval.asr: {error}", file=sys.stderr)
        return 2
    kept = keep(
        tqdm(systems(options, items, model, tokenizer, transcriber), unit="transcript"),
        options.out and options.out.with_suffix(".jsonl"),
    )
    rows = summarize(kept)
    print(markdown_table(HEAD, rows))
    if options.out:
        table = Table(title=options.title, head=HEAD, rows=rows)
        about = {"metric_models": verify(assets) if assets else {}}
        write_results(options.out, command_line("eval.asr", argv), [table], details=about)
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(main())
