"""Measure the speed of the codec.

    python -m eval.speed.codec [--tokenizer FOLDER] [--minutes 10] [--out FILE]

It is compared with the same weights computed the plain, published way (`eval.speed.reference_codec`): clips
as long as the window and longer, streams of one frame a call with a full window, and the quantizer alone. On
a CPU the clock is that of the one thread, contenders take turns, and a ratio is the median of the rounds'
ratios; on CUDA the clock is that of events.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from eval.common.results import command_line, markdown_table, positive, require_place, write_json
from eval.speed.operator_count import operator_calls
from eval.speed.reference_codec import PublishedStyleCodec
from tokenizer import AudioTokenizer, TokenizerConfig
from tokenizer.config import QuantizerConfig, mirrored

CLIPS = (10, 30, 60)
"""Lengths of the clips in seconds."""

Task = tuple[Callable[[], object], Callable[[], object], int, float]
"""The published computation, ours, calls a round, and seconds of audio a call."""


@dataclass(frozen=True, kw_only=True)
class CodecTiming:
    """Times of one task, computed both ways."""

    task: str
    published_ms: float
    ours_ms: float
    speed_up: float
    """Median of the rounds' ratios, not the ratio of the medians."""
    rtfx: float
    """Seconds of audio in a second of our computation."""


@dataclass(frozen=True, kw_only=True)
class Flatness:
    """Times and memory of a long stream of one frame a call, window by window."""

    window_seconds: float
    decode_ms: list[float]
    """Median over the frames of each window."""
    encode_ms: list[float]
    cache_mb: list[float]
    """MiB that both caches hold, at the end of each window."""
    resident_mb: list[float]


@dataclass(frozen=True, kw_only=True)
class CodecSpeed:
    """Everything measured in one run."""

    device: str
    torch: str
    threads: int
    parameters: int
    codes: int
    """Codes of all clips, in all codebooks."""
    codes_differing: int
    """Codes that differ from those of the published computation: near ties fall either way in float32."""
    audio_difference: float
    """Largest difference between this project's audio and that of the published computation."""
    stream_difference: float
    """Largest difference between streamed and offline audio of 25 s."""
    operators: dict[str, int]
    """Operator calls of a streamed frame."""
    rows: list[CodecTiming]
    mimi: dict[str, float] | None
    flatness: Flatness | None


def small() -> TokenizerConfig:
    """Return sizes of 22M parameters at full depth, at which the published code was measured."""
    return mirrored(
        patches=(240, 2, 2, 2),
        dims=(128, 192, 256, 384),
        layers=(2, 2, 2, 4),
        ffn_dims=(512, 768, 1024, 1536),
        head_dim=64,
        code_dim=768,
        quantizer=QuantizerConfig(),
        layer_scale=0.1,
    )


@torch.no_grad()
def measure(
    tokenizer: AudioTokenizer, *, rounds: int = 7, minutes: float = 0, mimi: bool = False, seed: int = 0
) -> CodecSpeed:
    """Measure a codec on the device where it is, and compare it with the published computation.

    Args:
        tokenizer: The codec.
        rounds: Number of turns of every contender.
        minutes: Length of the long stream; 0 for none.
        mimi: Whether `transformers`' Mimi is measured as well.
        seed: Determines the audio and the codes, which are random.

    Returns:
        All measurements.
    """
    config, device = tokenizer.config, next(tokenizer.parameters()).device
    published = PublishedStyleCodec(tokenizer)
    draw = torch.Generator().manual_seed(seed)
    clips = [torch.randn(1, seconds * config.sample_rate, generator=draw) for seconds in CLIPS]
    clips = [(0.1 * clip).to(device) for clip in clips]
    codes = [tokenizer.encode(clip) for clip in clips]
    differences = [(tokenizer.decode(code) - published.decode(code)).abs().max().item() for code in codes]
    frame, column = clips[0][:, : config.frame_size], codes[0][:, :1]
    encoding, decoding = tokenizer.encoder_cache(), tokenizer.decoder_cache()
    for part, code in zip(clips[0].split(config.frame_size, 1), codes[0].split(1, 1), strict=True):
        tokenizer.encode(part, cache=encoding)
        tokenizer.decode(code, decoding)
    encoder_rings, decoder_rings = published.encoder_rings(), published.decoder_rings()
    latents, search, lookup = tokenizer.latents(frame), encoding.quantizer, decoding.quantizer
    tasks: dict[str, Task] = {}
    for seconds, clip, code in zip(CLIPS, clips, codes, strict=True):
        encode = partial(published.encode, clip), partial(tokenizer.encode, clip)
        decode = partial(published.decode, code), partial(tokenizer.decode, code)
        tasks |= {f"encode {seconds} s": (*encode, 1, seconds), f"decode {seconds} s": (*decode, 1, seconds)}
    tasks |= {
        "encode a frame": (
            lambda: published.encode(frame, encoder_rings),
            lambda: tokenizer.encode(frame, cache=encoding),
            10,
            1 / config.frame_rate,
        ),
        "decode a frame": (
            lambda: published.decode(column, decoder_rings),
            lambda: tokenizer.decode(column, decoding),
            10,
            1 / config.frame_rate,
        ),
        "quantise a frame": (
            lambda: published.quantize(latents),
            lambda: search(latents, config.num_codebooks),  # pyright: ignore[reportArgumentType]
            10,
            1 / config.frame_rate,
        ),
        "dequantise a frame": (
            lambda: published.dequantize(column),
            lambda: lookup(column),  # pyright: ignore[reportArgumentType, reportCallIssue]
            20,
            1 / config.frame_rate,
        ),
    }
    for theirs, ours, _, _ in tasks.values():
        theirs()
        ours()
    times: dict[str, list[tuple[float, float]]] = {task: [] for task in tasks}
    for _ in range(rounds):
        for task, (theirs, ours, calls, _) in tasks.items():
            times[task].append((_seconds(theirs, calls, device), _seconds(ours, calls, device)))
    return CodecSpeed(
        device=str(device),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        parameters=sum(parameter.numel() for parameter in tokenizer.parameters()),
        codes=sum(code.numel() for code in codes),
        codes_differing=sum(
            int((published.encode(clip) != code).sum()) for clip, code in zip(clips, codes, strict=True)
        ),
        audio_difference=max(differences),
        stream_difference=_stream_difference(tokenizer, draw),
        operators={
            "published encode": operator_calls(tasks["encode a frame"][0]),
            "encode": operator_calls(tasks["encode a frame"][1]),
            "published decode": operator_calls(tasks["decode a frame"][0]),
            "decode": operator_calls(tasks["decode a frame"][1]),
        },
        rows=[
            CodecTiming(
                task=task,
                published_ms=1000 * median(theirs for theirs, _ in pairs),
                ours_ms=1000 * median(ours for _, ours in pairs),
                speed_up=median(theirs / ours for theirs, ours in pairs),
                rtfx=tasks[task][3] / median(ours for _, ours in pairs),
            )
            for task, pairs in times.items()
        ],
        mimi=_mimi(clips[0], device) if mimi else None,
        flatness=_flatness(tokenizer, minutes) if minutes else None,
    )


def _seconds(call: Callable[[], object], calls: int, device: torch.device) -> float:
    """Return the time of one of `calls` calls."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1000 / calls
    begin = time.thread_time()
    for _ in range(calls):
        call()
    return (time.thread_time() - begin) / calls


def _stream_difference(tokenizer: AudioTokenizer, draw: torch.Generator) -> float:
    config, device = tokenizer.config, next(tokenizer.parameters()).device
    shape = (1, round(25 * config.frame_rate), config.num_codebooks)
    codes = torch.randint(config.codebook_size, shape, generator=draw).to(device)
    cache = tokenizer.decoder_cache()
    streamed = torch.cat([tokenizer.decode(code, cache) for code in codes.split(1, 1)], 1)
    return (streamed - tokenizer.decode(codes)).abs().max().item()


def _flatness(tokenizer: AudioTokenizer, minutes: float) -> Flatness:
    config, device = tokenizer.config, next(tokenizer.parameters()).device
    encoding, decoding = tokenizer.encoder_cache(), tokenizer.decoder_cache()
    frame = torch.zeros(1, config.frame_size, device=device)
    column = torch.zeros(1, 1, config.num_codebooks, dtype=torch.long, device=device)
    window = round(config.context_seconds * config.frame_rate)
    flat = Flatness(
        window_seconds=config.context_seconds, decode_ms=[], encode_ms=[], cache_mb=[], resident_mb=[]
    )
    for _ in range(round(60 * minutes / config.context_seconds)):
        decode = [_seconds(lambda: tokenizer.decode(column, decoding), 1, device) for _ in range(window)]
        encode = [_seconds(lambda: tokenizer.encode(frame, cache=encoding), 1, device) for _ in range(window)]
        blocks = [stage.block for cache in (encoding, decoding) for stage in cache.stages]
        flat.decode_ms.append(1000 * median(decode))
        flat.encode_ms.append(1000 * median(encode))
        flat.cache_mb.append(sum(block.untyped_storage().nbytes() for block in blocks) / 2**20)
        flat.resident_mb.append(_resident_mb())
    return flat


def _resident_mb() -> float:
    """Return the memory of this process; 0 where the system does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def _mimi(audio: torch.Tensor, device: torch.device) -> dict[str, float]:
    """Return times real time of Mimi (random weights, offline): another size, for orientation."""
    from transformers import MimiConfig, MimiModel  # slow to import

    model: Any = MimiModel(MimiConfig()).eval()
    model.to(device)
    codes = model.encode(audio[:, None]).audio_codes
    seconds = audio.shape[1] / model.config.sampling_rate
    encode = median(_seconds(lambda: model.encode(audio[:, None]), 1, device) for _ in range(3))
    decode = median(_seconds(lambda: model.decode(codes), 1, device) for _ in range(3))
    return {"encode_rtfx": seconds / encode, "decode_rtfx": seconds / decode}


def table(result: CodecSpeed) -> str:
    """Return the timings as a Markdown table."""
    head = ("task", "published ms", "ours ms", "speed-up", "x real time")
    return markdown_table(head, [tuple(asdict(row).values()) for row in result.rows])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line: `python -m eval.speed.codec --help`."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m eval.speed.codec", description="Speed of the codec.")
    parser.add_argument("--tokenizer", help="folder or hub id (default: random weights of 22M parameters)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--minutes", type=float, default=0, help="length of a long stream to measure")
    parser.add_argument("--mimi", action="store_true", help="measure transformers' Mimi as well")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(argv)
    require_place(options.out)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = (
        AudioTokenizer.from_pretrained(options.tokenizer) if options.tokenizer else AudioTokenizer(small())
    )
    result = measure(
        model.eval().to(options.device), rounds=options.rounds, minutes=options.minutes, mimi=options.mimi
    )
    print(table(result))
    facts = asdict(result)
    del facts["rows"]
    for name, value in facts.items():
        print(f"{name}: {value}")
    if options.out:
        write_json(options.out, {"command": command_line("eval.speed.codec", argv), **asdict(result)})


if __name__ == "__main__":
    main()
