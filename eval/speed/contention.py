"""Measure how much slower one sentence gets beside other programs: a busy loop on every core.

python -m eval.speed.contention --rounds 5
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from eval.common.results import markdown_table, positive
from eval.speed.first_audio import TEXT
from inference import SynthesisOptions, Synthesizer
from inference.engine.options import ONE_ATTEMPT
from inference.synthesis.loading import DEFAULT_MODEL


@contextmanager
def busy_cores() -> Iterator[None]:
    """Run a busy loop for every core, at the priority of this process."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def real_time_factor(seed: int) -> float:
    """Return the RTF of one sentence by the embedded model, reading and encoding the prompt included.

    Args:
        seed: Of the sentence. Only one attempt is made.
    """
    synthesizer = Synthesizer.from_pretrained(device="cpu")
    prompt = DEFAULT_MODEL / "prompt.flac"
    start = time.perf_counter()
    voice = synthesizer.load_voice(prompt, prompt.with_suffix(".txt").read_text(encoding="utf-8"))
    result = synthesizer.synthesize(TEXT, voice, SynthesisOptions(seed=seed, policy=ONE_ATTEMPT))
    return (time.perf_counter() - start) / result.seconds


def measure(rounds: int) -> dict[str, float]:
    """Return the median RTF of an idle and of a busy machine, in turns, and their ratio.

    Args:
        rounds: Sentences in each state.
    """
    real_time_factor(0)  # compiles and loads what is needed once
    idle, busy = list[float](), list[float]()
    for seed in range(1, rounds + 1):
        idle.append(real_time_factor(seed))
        with busy_cores():
            busy.append(real_time_factor(seed))
    medians = {"idle": statistics.median(idle), "busy": statistics.median(busy)}
    return medians | {"ratio": medians["busy"] / medians["idle"]}


def main(argv: list[str] | None = None) -> int:
    """Command line; prints the table."""
    parser = argparse.ArgumentParser(prog="python -m eval.speed.contention", description=__doc__)
    parser.add_argument("--rounds", type=positive, default=5, help="sentences in each state (default: 5)")
    measured = measure(parser.parse_args(argv).rounds)
    print(markdown_table(list(measured), [list(measured.values())]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
