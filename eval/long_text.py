"""Measure the drift of voice, speed and memory over a long text.

    python -m eval.long_text --text FILE --prompt voice.wav --prompt-text "What it says." --out JSON

The text is synthesized in segments by `inference.longform.stream`. The report gives slopes over the
number of the segment with 95 % confidence intervals (least squares, normal errors): of the similarity of each
segment to the prompt (CAM++ cosine), and of its RTF and CPU seconds per second of speech, for segments that
needed one attempt. A voice that does not drift has a slope whose interval holds 0.
"""

import argparse
import logging
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from eval.assets import verify
from eval.common.results import (
    add_assets_option,
    command_line,
    markdown_table,
    mean,
    positive,
    require_assets,
    require_place,
    write_json,
)
from eval.metrics.audio import METRIC_RATE, MetricError, SpeakerEncoder
from inference import Synthesizer
from inference.engine.options import SynthesisOptions
from inference.longform.plan import plan
from inference.longform.silence_trimming import trim_and_fade
from inference.longform.stream import SynthesisStream
from inference.synthesis.runner import LocalRunner
from tokenizer import load_audio


def measure(synthesizer: Synthesizer, encoder: SpeakerEncoder, options: argparse.Namespace) -> list[dict]:
    """Synthesize a text and measure every segment.

    Args:
        synthesizer: The model.
        encoder: The speaker encoder that compares each segment with the prompt.
        options: The options of the command line: text, prompt, its transcript and depth.

    Returns:
        A record for every segment: how it was synthesized, `similarity` (None where it has no voice),
        wall-clock and CPU seconds per second of speech, and the peak memory of the process in MiB.
    """
    wanted = encoder.embed(load_audio(options.prompt, METRIC_RATE).numpy(), METRIC_RATE)
    voice = synthesizer.load_voice(options.prompt, options.prompt_text)
    text, chosen = options.text.read_text(encoding="utf-8"), SynthesisOptions(depth=options.depth)
    records, wall, cpu = list[dict](), time.perf_counter(), time.process_time()
    stream = SynthesisStream(LocalRunner(synthesizer), plan(synthesizer, text, voice, chosen))
    for _ in tqdm(stream, unit="chunk"):
        if len(stream.results) == len(records):
            continue
        segment = stream.results[-1]
        spent, worked = time.perf_counter() - wall, time.process_time() - cpu
        speech = trim_and_fade(segment.audio, synthesizer.sample_rate)
        seconds = len(speech) / synthesizer.sample_rate
        try:
            # oneDNN would keep a compiled convolution for every length, and its memory would be counted.
            with torch.backends.mkldnn.flags(enabled=False):
                similarity = float(encoder.embed(speech, synthesizer.sample_rate) @ wanted)
        except MetricError:
            similarity = None
        records.append(
            {
                "text": stream.plan.requests[len(records)].text,
                "seconds": seconds,
                "stop_reason": segment.stop_reason,
                "attempts": segment.attempts,
                "similarity": similarity,
                "rtf": spent / seconds,
                "cpu_per_second": worked / seconds,
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
        wall, cpu = time.perf_counter(), time.process_time()
    return records


def slope(values: Sequence[float | None]) -> dict[str, float | None]:
    """Fit a line to values over the number of the segment, by least squares.

    Args:
        values: A value for each segment; None values are left out.

    Returns:
        The mean, the slope per 100 segments, and the 95 % interval of the slope; fewer than three values have
        neither slope nor interval.
    """
    numbers = np.array([n for n, value in enumerate(values) if value is not None], dtype=float)
    there = np.array([value for value in values if value is not None], dtype=float)
    if len(there) < 3:
        return {"mean": mean(there.tolist()), "per_100": None, "low": None, "high": None}
    centred = numbers - numbers.mean()
    rise = float(centred @ there / (centred @ centred))
    rest = there - there.mean() - rise * centred
    error = float(np.sqrt(rest @ rest / (len(there) - 2) / (centred @ centred)))
    low, high = 100 * (rise - 1.96 * error), 100 * (rise + 1.96 * error)
    return {"mean": float(there.mean()), "per_100": 100 * rise, "low": low, "high": high}


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when it ran, 2 with one line on the standard error stream when it could not."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m eval.long_text", description="Drift in a long text.")
    parser.add_argument("--text", type=Path, required=True, help="UTF-8 text file")
    parser.add_argument("--prompt", type=Path, required=True, help="recording of the voice")
    parser.add_argument("--prompt-text", required=True, help="what it says")
    parser.add_argument("--model", help="folder or hub id (default: the model of this repository)")
    parser.add_argument("--depth", type=positive, help="codebooks (default: all)")
    parser.add_argument("--out", type=Path, help="JSON file")
    add_assets_option(parser)
    options = parser.parse_args(argv)
    try:
        require_place(options.out)
        assets = require_assets(options.assets)
        encoder = SpeakerEncoder(assets)
        records = measure(Synthesizer.from_pretrained(options.model), encoder, options)
    except (ValueError, OSError) as error:
        print(f"eval.long_text: {error}", file=sys.stderr)
        return 2
    slopes = {"similarity": slope([r["similarity"] for r in records])}
    for name in ("rtf", "cpu_per_second"):
        slopes[name] = slope([r[name] if r["attempts"] == 1 else None for r in records])
    slopes["peak_mib"] = slope([r["peak_mib"] for r in records])
    print(
        markdown_table(["", *slopes["similarity"]], [[name, *row.values()] for name, row in slopes.items()])
    )
    stops = dict(Counter(r["stop_reason"] for r in records))
    retries = sum(r["attempts"] - 1 for r in records)
    print(f"{len(records)} segments, stopped: {stops}, retries: {retries}")
    if options.out:
        head = {"command": command_line("eval.long_text", argv), "metric_models": verify(assets, "campplus/")}
        write_json(
            options.out, head | {"slopes": slopes, "stops": stops, "retries": retries, "segments": records}
        )
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(main())
