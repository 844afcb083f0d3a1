"""Draw what training runs logged: one panel a key, one line a run.

    python -m eval.curves losses.png --runs RUN [RUN ...] --keys train/loss/mel,train/loss/semantic

Reads RUN/metrics.jsonl. Keys `train/...` are drawn as running means over `--smooth` logged values, all others
as they are; runs that never logged a key are left out of its panel.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from eval.common.results import positive, require_place


def read_curve(run: Path, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the values that a run logged under a key.

    Args:
        run: The folder of the run.
        key: A key of metrics.jsonl.

    Returns:
        The steps [n] at which the key was logged, and its values [n].

    Raises:
        ValueError: If the folder holds no metrics.jsonl.
    """
    path = run / "metrics.jsonl"
    if not path.exists():
        raise ValueError(f"{run}: holds no metrics.jsonl; name the folder of a training run")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    logged = [(line["step"], line[key]) for line in lines if key in line]
    return np.array([step for step, _ in logged]), np.array([value for _, value in logged], dtype=float)


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Return the mean of each value and up to `width` - 1 before it.

    Args:
        values: Values [n].
        width: The most values in a mean.

    Returns:
        The means [n].
    """
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return (sums[ends] - sums[starts]) / (ends - starts)


def draw(out: Path, runs: list[Path], keys: list[str], smooth: int) -> None:
    """Draw a panel for each key, with one line a run.

    Args:
        out: The picture to write.
        runs: The folders of the runs.
        keys: Keys of metrics.jsonl.
        smooth: The number of logged values in the running mean of keys `train/...`.

    Raises:
        ValueError: If none of the runs logged a key.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(4.2 * columns, 2.9 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(keys) :]:
        axis.set_visible(False)
    for axis, key in zip(axes.flat, keys, strict=False):
        curves = {run.name: read_curve(run, key) for run in runs}
        if not any(len(steps) for steps, _ in curves.values()):
            raise ValueError(f"{key}: logged by none of the runs; look into metrics.jsonl for what was")
        for name, (steps, values) in curves.items():
            if len(steps):
                shown = running_mean(values, smooth) if key.startswith("train/") else values
                axis.plot(steps, shown, label=name, linewidth=1.2)
        axis.set_title(key, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when it ran, 2 with one line on the standard error stream when it could not."""
    parser = argparse.ArgumentParser(prog="python -m eval.curves", description="Draw training curves.")
    parser.add_argument("out", type=Path, help="picture to write: png, svg or pdf")
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of training runs")
    parser.add_argument("--keys", type=lambda text: text.split(","), required=True, help="comma-separated")
    parser.add_argument("--smooth", type=positive, default=8, help="logged values in the running mean")
    options = parser.parse_args(argv)
    try:
        require_place(options.out)
        draw(options.out, options.runs, options.keys, options.smooth)
    except ValueError as error:
        print(f"eval.curves: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
