"""Measure the effect of Progressive Sequence Dropout: Figure 3 of the paper at a small scale.

    python -m eval.ablations.dropout runs/sweep --codes FOLDER --p 0,0.5,1 --out sweep.json --figure sweep.png

Trains one model for each p on the same steps of the same data, then measures each at every depth: the
cross-entropy of the first k codebooks on held-out utterances, where the model reads only the first k. With
`--deep-part` one more model learns its deep codebooks, at the last p, on a part of the frames. A second call
resumes where the first one ended.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from cat_tts import CatTTS
from cat_tts import config as models
from cat_tts.config import TransformerConfig, TTSConfig
from eval.common.results import command_line, markdown_table, positive, require_place, write_json
from training.train_tts import train
from training.tts import recipes
from training.tts.batches import DropoutConfig, TTSBatch
from training.tts.monitor import packed
from training.tts.recipes import TTSTraining
from training.tts.setup import build


def small() -> TTSConfig:
    """Return a third of the mini model, small enough that minutes of training have an effect."""
    return replace(
        models.mini(),
        temporal=TransformerConfig(
            dim=192, num_layers=4, num_heads=3, num_kv_heads=3, head_dim=64, ffn_dim=512
        ),
        depth=TransformerConfig(dim=128, num_layers=2, num_heads=2, num_kv_heads=2, head_dim=64, ffn_dim=384),
    )


SHAPES = {"small": small, "mini": models.mini, "tiny": models.tiny}


@torch.no_grad()
def by_utterance(model: CatTTS, batches: Sequence[TTSBatch]) -> Float[np.ndarray, "k n l 2"]:
    """Sum the cross-entropy of each batch by codebook, at each depth.

    Args:
        model: The model, in evaluation mode.
        batches: The utterances to measure on, n batches.

    Returns:
        Sums of the cross-entropy in nats and counts of codes [k, n, l, 2]: k depths and l codebooks.
    """
    deepest, measured = model.config.num_codebooks, []
    for depth in range(1, deepest + 1):
        for batch in batches:
            depths = torch.full_like(batch.depth, depth)
            loss = model(batch.rows, None, batch.targets, depths, batch.positions)
            measured.append(packed(loss)[:-2].view(2, deepest).T)
    return torch.stack(measured).view(deepest, len(batches), deepest, 2).cpu().numpy()


def summary(sums: Float[np.ndarray, "k n l 2"]) -> dict:
    """Return the mean cross-entropy of a code: over all codebooks of each depth, and by codebook.

    Args:
        sums: Sums and counts [k, n, l, 2] of `by_utterance`.

    Returns:
        `loss`: k means in nats; `layers`: for each depth, the means in nats of the codebooks up to it.
    """
    total = sums.sum(1)
    layers = [[float(s / c) for s, c in depth[: k + 1]] for k, depth in enumerate(total)]
    codes = total.sum(1)
    return {"loss": (codes[:, 0] / codes[:, 1]).tolist(), "layers": layers}


def difference(sums: Float[np.ndarray, "k n l 2"], other: Float[np.ndarray, "k n l 2"]) -> list[list[float]]:
    """Compare two models at each depth, with the standard error over utterances.

    Args:
        sums: Sums and counts [k, n, l, 2] of `by_utterance`.
        other: Those of the model to compare with, on the same utterances.

    Returns:
        For each depth, how much higher the loss is than the other's, and the standard error, in nats a code.
    """
    kept = sums.sum(2)
    gap, weight = (kept - other.sum(2))[..., 0], kept[..., 1]
    mean = gap.sum(1) / weight.sum(1)
    spread = (gap - mean[:, None] * weight).std(1, ddof=1) * np.sqrt(gap.shape[1]) / weight.sum(1)
    return np.stack([mean, spread], 1).tolist()


def measure_sweep(options: argparse.Namespace) -> dict | None:
    """Train and measure a model for each p; the last p is what the others are compared with.

    Args:
        options: The options of the command line.

    Returns:
        The results as they are written to the JSON file; None with `--only`, which just trains one run.
    """
    base = recipes.mini()
    base = replace(
        base,
        shape=SHAPES[options.shape](),
        codes=options.codes,
        steps=options.steps,
        save_every=options.save_every,
        batches=replace(base.batches, rows=options.rows),
        optimizer=replace(base.optimizer, learning_rate=options.learning_rate, warmup=options.warmup),
        validation=options.validation,
    )
    chosen = {f"p = {p:g}": replace(base.dropout, p=p) for p in options.p}
    if options.deep_part is not None:
        name, p = f"p = {options.p[-1]:g}, deep {options.deep_part:g}", options.p[-1]
        chosen[name] = replace(base.dropout, p=p, deep_part=options.deep_part)
    if options.only is not None:
        train(trained(options.runs, base, *list(chosen.items())[options.only]))
        return None
    sums = {}
    for name, dropout in chosen.items():
        recipe = trained(options.runs, base, name, dropout)
        train(recipe)
        parts = build(recipe)
        sums[name] = by_utterance(parts.average.module().eval(), parts.validation)
    reference = sums[f"p = {options.p[-1]:g}"]
    results = {name: {**summary(one), "difference": difference(one, reference)} for name, one in sums.items()}
    return {"utterances": options.validation, "runs": results, "tables": tables(results)}


def trained(runs: Path, base: TTSTraining, name: str, dropout: DropoutConfig) -> TTSTraining:
    """Return the recipe of one run.

    Args:
        runs: The folder of all runs.
        base: The recipe that the runs share.
        name: The name of the run; its folder is named after it.
        dropout: The dropout of the run.
    """
    return replace(base, run=runs / name.replace(" ", "").replace(",", "-").replace("=", ""), dropout=dropout)


def tables(results: dict) -> list[dict]:
    """Return the tables of a sweep: loss by depth and run, differences, and each codebook at full depth.

    Args:
        results: `loss`, `layers` and `difference`, by the name of the run.

    Returns:
        Three tables with the keys `title`, `head` and `rows`.
    """
    names = list(results)
    depths = range(1, 1 + len(results[names[0]]["loss"]))
    by_depth = [[k, *(round(results[name]["loss"][k - 1], 4) for name in names)] for k in depths]
    layers = [[k, *(round(results[name]["layers"][-1][k - 1], 4) for name in names)] for k in depths]
    gaps = [
        [k, *("{:+.4f} +- {:.4f}".format(*results[name]["difference"][k - 1]) for name in names)]
        for k in depths
    ]
    return [
        {
            "title": "Cross-entropy a code (nats) of the first k codebooks, given those alone",
            "head": ["depth k", *names],
            "rows": by_depth,
        },
        {
            "title": "Difference to the last p, and its standard error over utterances",
            "head": ["depth k", *names],
            "rows": gaps,
        },
        {
            "title": "Cross-entropy (nats) of each codebook at full depth",
            "head": ["codebook", *names],
            "rows": layers,
        },
    ]


def draw(out: Path, results: dict) -> None:
    """Draw the loss over depth, one line a run, and the difference of each to the last p.

    Args:
        out: The picture to write.
        results: `loss` and `difference`, by the name of the run.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for name, result in results.items():
        depths = range(1, 1 + len(result["loss"]))
        gap, error = np.array(result["difference"]).T
        left.plot(depths, result["loss"], marker="o", markersize=3, linewidth=1.2, label=name)
        right.errorbar(depths, gap, error, marker="o", markersize=3, linewidth=1.2, capsize=2, label=name)
    left.set_ylabel("cross-entropy a code (nats)")
    right.set_ylabel("difference to the last p")
    for axis in (left, right):
        axis.set_xlabel("depth: codebooks read and spoken")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when it ran, 2 with one line on the standard error stream when it could not."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m eval.ablations.dropout", description="Sweep p.")
    parser.add_argument("runs", type=Path, help="folder of the runs")
    parser.add_argument("--codes", type=Path, required=True, help="folder of training.prepare")
    parser.add_argument(
        "--p", type=lambda text: [float(part) for part in text.split(",")], default=[0.0, 0.5, 1.0]
    )
    parser.add_argument("--deep-part", type=float, help="one more run, at the last p: 0.0625 is CSM's")
    parser.add_argument("--shape", choices=list(SHAPES), default="small")
    parser.add_argument("--steps", type=positive, default=300)
    parser.add_argument("--rows", type=positive, default=512, help="of a step")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--warmup", type=positive, default=66, help="steps")
    parser.add_argument("--validation", type=positive, default=64, help="utterances kept out")
    parser.add_argument("--save-every", type=positive, default=200, help="steps")
    parser.add_argument("--only", type=int, help="just train this run, counted from 0")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--figure", type=Path, help="picture to write")
    options = parser.parse_args(argv)
    try:
        for place in (options.out, options.figure):
            require_place(place)
        results = measure_sweep(options)
    except ValueError as error:
        print(f"eval.ablations.dropout: {error}", file=sys.stderr)
        return 2
    if results is None:
        return 0
    if options.out is not None:
        write_json(options.out, {"command": command_line("eval.ablations.dropout", argv), **results})
    if options.figure is not None:
        draw(options.figure, results["runs"])
    print(*(markdown_table(table["head"], table["rows"]) for table in results["tables"]), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
