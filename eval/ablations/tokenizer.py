"""The paper's ablations of the tokenizer, each as one command: train the variants, measure them, draw.

    python -m eval.ablations.tokenizer size --data MANIFEST --test FOLDER-OR-MANIFEST --out FOLDER

`end-to-end` is Figure 4 (stage 2 trains everything, or keeps encoder and quantizer), `size` Figure 5, `batch`
Figure 6. The same command resumes where it was stopped; a variant that is measured is not touched again.
FOLDER receives the runs, and FIGURE.json and FIGURE.png: quality by bitrate, means over the files for which
a metric exists; the others are counted.
"""

import json
import logging
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from tqdm import tqdm

from eval.ablations.variants import SCALES, AblationVariant, batch, end_to_end, size
from eval.common.recordings import recordings
from eval.common.results import Table, command_line, mean, write_json, write_results
from eval.metrics.audio import MetricError, pesq_wb, stoi
from eval.metrics.spectral_distances import mel_distance
from tokenizer import AudioTokenizer, load_audio
from training.common.run import STEP
from training.train_tokenizer import train

FIGURES = {"end-to-end": end_to_end, "size": size, "batch": batch}
TITLES = {
    "end-to-end": "End-to-end or partial training in stage 2 (Figure 4)",
    "size": "Size of the tokenizer (Figure 5)",
    "batch": "Audio in a step (Figure 6)",
}
METRICS = {"stoi": stoi, "pesq_wb": pesq_wb, "mel_distance": mel_distance}
MEASURED = "measured.json"


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """The options of an ablation: which figure, at which scale, from which audio."""

    figure: Annotated[Literal["end-to-end", "size", "batch"], tyro.conf.Positional]
    data: Path
    """Manifest to train on."""
    test: Path
    """Folder or manifest of audio to measure on; which the trainings must not include."""
    out: Path
    scale: Literal["mini", "paper", "tiny"] = "mini"
    steps: int | None = None
    """Steps of every variant, in place of the scale's number."""
    depths: tuple[int, ...] = (1, 2, 4, 8)
    limit: int = 50
    """Most files to measure on."""


def plan(options: Ablation) -> list[AblationVariant]:
    """Return the variants of a figure, in the order in which they are trained.

    Args:
        options: The options of the command line.

    Raises:
        ValueError: If a variant does not have one of the depths.
    """
    scale = SCALES[options.scale]()
    steps = scale.base.steps if options.steps is None else options.steps
    scale = replace(scale, base=replace(scale.base, data=options.data, run=options.out, steps=steps))
    deepest = scale.base.shape.model.num_codebooks
    if not options.depths or not all(1 <= depth <= deepest for depth in options.depths):
        raise ValueError(f"depths {options.depths}: this scale has depths 1 to {deepest}")
    return FIGURES[options.figure](scale)


def complete(variant: AblationVariant) -> bool:
    """Train a variant to its end, or resume its training.

    A variant that continues another run starts from a copy of it, which is complete or not there at all.

    Args:
        variant: The variant to train.

    Returns:
        Whether the training reached its last step; False when it was stopped before.
    """
    run = variant.options.run
    if variant.start is not None and not run.exists():
        temporary = run.with_name(f"{run.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(variant.start.options.run, temporary, ignore=shutil.ignore_patterns(MEASURED))
        temporary.rename(run)
    train(variant.options)
    return json.loads((run / "state" / STEP).read_text())["step"] == variant.options.steps


@torch.inference_mode()
def measure(model: AudioTokenizer, files: list[Path], depths: tuple[int, ...]) -> list[dict[str, object]]:
    """Measure the quality of a tokenizer at each depth.

    Args:
        model: The tokenizer.
        files: The audio files to reconstruct.
        depths: The numbers of codebooks to measure.

    Returns:
        A row for each depth: the bitrate in bit/s, the mean of each metric over the files for which it
        exists, the number of files, and how many values are undefined.
    """
    rate = model.config.sample_rate
    found = {depth: {name: [] for name in METRICS} for depth in depths}
    for path in tqdm(files, desc="measuring", leave=False):
        audio = load_audio(path, rate)
        codes = model.encode(audio[None], max(depths))
        for depth in depths:
            rebuilt = model.decode(codes[..., :depth])[0, : len(audio)].numpy()
            for name, metric in METRICS.items():
                try:
                    found[depth][name].append(metric(audio.numpy(), rebuilt, rate))
                except MetricError:
                    found[depth][name].append(None)
    return [
        {
            "depth": depth,
            "bitrate": model.config.bitrate(depth),
            **{name: mean(values) for name, values in found[depth].items()},
            "files": len(files),
            "undefined": sum(value is None for values in found[depth].values() for value in values),
        }
        for depth in depths
    ]


def draw(rows: list[dict], title: str, out: Path) -> None:
    """Draw the metrics over the bitrate: one panel a metric, one line a variant.

    Args:
        rows: The rows of `measure`, each with the name of its `variant`.
        title: The title of the figure.
        out: The picture to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(METRICS), figsize=(4.2 * len(METRICS), 3.2), layout="constrained")
    for axis, metric in zip(axes, METRICS, strict=True):
        for name in dict.fromkeys(row["variant"] for row in rows):
            points = [(row["bitrate"], row[metric]) for row in rows if row["variant"] == name]
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1.2, label=name)
        axis.set_xscale("log", base=2)
        axis.set_xlabel("bit/s")
        axis.set_title(metric, fontsize=9)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.suptitle(title, fontsize=10)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when the figure is drawn, 1 when it was stopped before, 2 when it cannot be drawn."""
    argv = sys.argv[1:] if argv is None else argv
    options = tyro.cli(Ablation, args=argv, description=__doc__)
    try:
        variants, files = plan(options), [one.path for one in recordings(options.test)][: options.limit]
        options.out.mkdir(parents=True, exist_ok=True)
        rows = []
        for variant in variants:
            path = variant.options.run / MEASURED
            if not path.exists():
                if not complete(variant):
                    print(
                        f"eval.ablations.tokenizer: stopped in {variant.name!r}; run it again to go on",
                        file=sys.stderr,
                    )
                    return 1
                model = AudioTokenizer.from_pretrained(variant.options.run / "model").eval()
                write_json(
                    path, {"steps": variant.options.steps, "rows": measure(model, files, options.depths)}
                )
            measured = json.loads(path.read_text())
            rows += [{"variant": variant.name, "steps": measured["steps"], **row} for row in measured["rows"]]
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"eval.ablations.tokenizer: {error}", file=sys.stderr)
        return 2
    table = Table(title=TITLES[options.figure], head=list(rows[0]), rows=[list(row.values()) for row in rows])
    picture = options.out / f"{options.figure}.png"
    draw(rows, table.title, picture)
    command = command_line("eval.ablations.tokenizer", argv)
    write_results(options.out / f"{options.figure}.json", command, [table], [picture])
    print(table.markdown)
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(main())
