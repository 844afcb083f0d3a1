"""Measure the speed of frame generation, against other implementations.

python -m eval.speed --sizes tiny,small --batches 1,8 --depths 8,16,32 --out speed.json
"""

import argparse
import platform
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from eval.common.results import (
    comma_separated,
    command_line,
    markdown_table,
    positive,
    require_place,
    write_json,
)
from eval.speed import first_audio, generation
from inference.device import usable_device

HEAD = ("size", "batch", "depth", "contender", "ms a frame", "frames/s", "x bound", "x ours", "x int8")
"""`x bound` is the time over that of reading the weights once at the bandwidth of a copy; `x ours` and
`x int8` are medians over the rounds of the contender's time over that of ours and of int8."""


def generation_rows(result: dict) -> list[list[object]]:
    """Return table rows by contender, with how many times as long as ours and as int8 it takes.

    Args:
        result: What `generation.measure` returned.

    Returns:
        A row for each contender, under `HEAD`.
    """
    ours, int8 = result["speed_of_ours"], result["speed_of_int8"]
    return [
        [
            result["size"],
            result["batch"],
            result["depth"],
            name,
            milliseconds,
            1000 * result["batch"] / milliseconds,
            milliseconds / result["bound_ms_per_frame"],
            ours.get(name),
            int8.get(name),
        ]
        for name, milliseconds in result["ms_per_frame"].items()
    ]


def _sizes(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= set(generation.SIZES):
        raise argparse.ArgumentTypeError(f"{text!r}: choose from {','.join(generation.SIZES)}")
    return names


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0 on success, or 2 after one line on the standard error stream."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m eval.speed", description="Speed, in one run.")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--sizes", type=_sizes, default=("tiny", "small"), help="of tiny,small,paper")
    parser.add_argument("--batches", type=comma_separated, default=(1, 8), help="such as 1,8")
    parser.add_argument("--depths", type=comma_separated, default=(8, 16, 32), help="such as 8,16,32")
    parser.add_argument(
        "--voice-depths", type=comma_separated, default=(4, 8, 12), help="of the embedded model, at most 12"
    )
    parser.add_argument("--text", default=first_audio.TEXT, help="what the embedded model says")
    parser.add_argument("--rounds", type=positive, default=7, help="of all contenders in turn")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args(argv)
    try:
        require_place(options.out)
        device = usable_device(options.device)
        if not all(2 <= depth <= 32 for depth in options.depths):
            raise ValueError(f"--depths {options.depths}: choose 2 to 32")
        if not all(1 <= depth <= 12 for depth in options.voice_depths):
            raise ValueError(f"--voice-depths {options.voice_depths}: the embedded model has 1 to 12")
    except (ValueError, OSError) as error:
        print(f"eval.speed: {error}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    cases = [
        (size, batch, depth)
        for size in options.sizes
        for batch in options.batches
        for depth in options.depths
    ]
    measured = [
        generation.measure(size, batch=batch, depth=depth, device=device, rounds=options.rounds)
        for size, batch, depth in tqdm(cases, unit="case")
    ]
    voice = first_audio.measure(
        depths=options.voice_depths, device=device, rounds=options.rounds, text=options.text
    )
    print(markdown_table(HEAD, [row for result in measured for row in generation_rows(result)]))
    print()
    print(markdown_table(list(voice[0]), [list(row.values()) for row in voice]))
    if options.out:
        write_json(
            options.out,
            {
                "command": command_line("eval.speed", argv),
                "torch": torch.__version__,
                "machine": torch.cuda.get_device_name() if device != "cpu" else platform.processor(),
                "threads": 1,
                "generation": measured,
                "voice": voice,
            },
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
