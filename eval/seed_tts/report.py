"""Show results of `eval.seed_tts` as tables and a picture, of one run or of several side by side.

    python -m eval.seed_tts.report RUN [RUN ...] --plot systems.png --out systems.json

A RUN is a folder that `python -m eval.seed_tts` has finished. Means stand with their 95 % intervals: over
seeds (Student's t of the means of seeds) where there are two or more, else over utterances (percentile
bootstrap, 2,000 resamples of utterances).
"""

import argparse
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy import stats

from eval.common.results import command_line, markdown_table, require_place, write_json
from eval.seed_tts.scorer import Score

RESAMPLES = 2_000


def summarize(scores: list[Score], bitrates: Mapping[int, float]) -> list[dict]:
    """Return a row for each depth, over all its utterances and seeds, missing ones included.

    Args:
        scores: All scores of a run.
        bitrates: The bit/s of each depth.

    Returns:
        The rows of `results.json`: error rates, similarity, counts and seconds of audio.
    """
    depths = dict.fromkeys(score.depth for score in scores)
    return [
        _row(depth, [score for score in scores if score.depth == depth], bitrates[depth] if depth else None)
        for depth in depths
    ]


def _row(depth: int | None, scores: list[Score], bitrate: float | None) -> dict:
    seeds = list(dict.fromkeys(score.seed for score in scores))

    def by_seed(name: str) -> np.ndarray:
        return np.array([[getattr(s, name) for s in scores if s.seed == seed] for seed in seeds], dtype=float)

    known = all(score.similarity is not None for score in scores)
    row = {
        "depth": depth,
        "bitrate": bitrate,
        "takes": len(scores),
        "missing": sum(score.missing for score in scores),
        "wer": estimate(by_seed("wer")),
    }
    row |= {name: float(by_seed(name).mean()) for name in ("substitutions", "deletions", "insertions")}
    for name in ("official", "modern"):
        counts = [getattr(score, name) for score in scores]
        row[f"wer_{name}_micro"] = _micro(counts)
    return row | {
        "similarity": estimate(by_seed("similarity")) if known else None,
        "stops": dict(sorted(Counter(score.stop for score in scores if score.stop).items())),
        "audio_seconds": math.fsum(score.seconds for score in scores),
    }


def _micro(counts: list) -> float:
    return sum(count.total for count in counts) / sum(count.words for count in counts)


def estimate(values: np.ndarray) -> dict:
    """Estimate a mean and its 95 % intervals, over seeds and over utterances.

    Args:
        values: Values [seeds, utterances].

    Returns:
        The mean, the mean of each seed, and both intervals as low and high; the one over seeds is None where
        there is a single seed.
    """
    means = values.mean(1)
    over_seeds = None
    if len(means) > 1:
        half = stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / math.sqrt(len(means))
        over_seeds = [float(means.mean() - half), float(means.mean() + half)]
    utterances = values.mean(0)
    drawn = np.random.default_rng(0).integers(len(utterances), size=(RESAMPLES, len(utterances)))
    over_utterances = np.percentile(utterances[drawn].mean(1), [2.5, 97.5]).tolist()
    return {
        "mean": float(values.mean()),
        "by_seed": means.tolist(),
        "over_seeds": over_seeds,
        "over_utterances": over_utterances,
    }


def tables(results: list[dict]) -> list[dict]:
    """Return a table for all results of the same metrics, with a row for each system and depth.

    Args:
        results: The results of each run; a table has a column for the RTF where they have the key "run".

    Returns:
        Tables with the keys `title`, `head` and `rows`.
    """
    found = []
    for title in dict.fromkeys(map(scored_by, results)):
        alike = [result for result in results if scored_by(result) == title]
        rate = "CER" if alike[0]["language"] == "zh" else "WER"
        head = ["system", "depth", "bit/s", "takes", "missing", f"{rate} % [95 %]", "S / D / I %"]
        head += [f"{rate} % micro", f"{rate} % modern micro", "SIM [95 %]", "ended by"]
        timed = any("run" in result for result in alike)
        rows = [_cells(result, row, timed) for result in alike for row in result["rows"]]
        found.append({"title": title, "head": head + ["RTF"] * timed, "rows": rows})
    return found


def _cells(result: dict, row: dict, timed: bool) -> list:
    rates = " / ".join(f"{100 * row[name]:.1f}" for name in ("substitutions", "deletions", "insertions"))
    rtf = (result.get("run", {}).get("rtf") or {}).get(str(row["depth"]))
    return [
        result["system"]["name"],
        row["depth"],
        None if row["bitrate"] is None else f"{row['bitrate']:g}",
        row["takes"],
        row["missing"],
        _interval(row["wer"], 100),
        rates,
        f"{100 * row['wer_official_micro']:.2f}",
        f"{100 * row['wer_modern_micro']:.2f}",
        None if row["similarity"] is None else _interval(row["similarity"], 1),
        row["stops"],
        *([None if rtf is None else f"{rtf:.2f}"] if timed else []),
    ]


def markdown(results: list[dict]) -> str:
    """Return the tables as Markdown, each under its title.

    Args:
        results: The results of each run.
    """
    return "\n\n".join(
        f"{table['title']}\n\n{markdown_table(table['head'], table['rows'])}" for table in tables(results)
    )


def scored_by(result: dict) -> str:
    """Return a line on list and metric models, and whether the numbers are comparable to published ones.

    Args:
        result: The results of a run.
    """
    metrics = result["metrics"]
    if "recogniser" in metrics:  # results of earlier versions
        metrics = {**metrics, "recognizer": metrics["recogniser"]}
    names = {part: metrics[part] for part in ("recognizer", "similarity")}
    text = ", ".join(
        f"{part}: {model['name']}{'' if model['official'] else ' (not the official one)'}"
        for part, model in names.items()
        if model is not None
    )
    official = all(model is None or model["official"] for model in names.values())
    verdict = (
        "The metric models are the official ones." if official else "Not comparable to published numbers."
    )
    return (
        f"{result['meta']['name']} ({result['meta']['lines']} lines, {result['language']}), {text}. {verdict}"
    )


def _interval(value: dict, scale: float) -> str:
    low, high = value["over_seeds"] or value["over_utterances"]
    return f"{scale * value['mean']:.3f} [{scale * low:.3f}, {scale * high:.3f}]"


def draw(results: list[dict], out: Path) -> None:
    """Draw bars of errors and similarity of every system and depth, with the intervals of the table.

    Args:
        results: The results of each run.
        out: The picture to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    bars = [(result, row) for result in results for row in result["rows"]]
    labels = [
        result["system"]["name"].replace(", ", ",\n").replace(" (", "\n(").replace("-", "-\n")
        + ("" if row["depth"] is None else f"\ndepth {row['depth']}")
        for result, row in bars
    ]
    rate = "CER" if results[0]["language"] == "zh" else "WER"
    figure, axes = pyplot.subplots(1, 2, figsize=(max(8.4, 1.5 * len(bars)), 3.6), layout="constrained")
    for axis, name, title, scale in (
        (axes[0], "wer", f"{rate} in %, macro mean", 100),
        (axes[1], "similarity", "similarity to the prompt", 1),
    ):
        shown = [(label, row[name]) for label, (_, row) in zip(labels, bars, strict=True) if row[name]]
        for place, (_, value) in enumerate(shown):
            low, high = value["over_seeds"] or value["over_utterances"]
            middle = value["mean"]
            error = [[scale * max(0, middle - low)], [scale * max(0, high - middle)]]
            axis.bar(place, scale * middle, 0.6, yerr=error, capsize=4, color=f"C{place}")
            text = f"{scale * middle:.1f}" if scale == 100 else f"{middle:.2f}"
            axis.annotate(text, (place + 0.04, scale * middle), fontsize=8, va="bottom")
        axis.set_xticks(range(len(shown)), [label for label, _ in shown], fontsize=7)
        axis.set_title(title, fontsize=9)
        axis.tick_params(axis="y", labelsize=8)
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def read_run(folder: Path) -> dict:
    """Read the results of a run, and under "run" how they were computed.

    Args:
        folder: The folder of the run.

    Raises:
        ValueError: If the run is not finished.
    """
    paths = folder / "results.json", folder / "run.json"
    if not all(path.is_file() for path in paths):
        raise ValueError(f"{folder}: holds no results; name the folder of a finished python -m eval.seed_tts")
    results, run = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
    return results | {"run": run}


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when it ran, 2 with one line on the standard error stream when it could not."""
    argv = sys.argv[1:] if argv is None else argv
    about = "Runs of eval.seed_tts side by side."
    parser = argparse.ArgumentParser(prog="python -m eval.seed_tts.report", description=about)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument("--plot", type=Path, help="picture to write: png, svg or pdf")
    parser.add_argument("--out", type=Path, help="JSON file to write: tables, picture, and all results")
    options = parser.parse_args(argv)
    try:
        require_place(options.plot)
        require_place(options.out)
        results = [read_run(folder) for folder in options.runs]
        if len({result["language"] for result in results}) > 1:
            raise ValueError("the runs are of both languages; compare those of one")
        if options.plot:
            draw(results, options.plot)
    except (ValueError, OSError) as error:
        print(f"eval.seed_tts.report: {error}", file=sys.stderr)
        return 2
    if options.out:
        figures = [os.path.relpath(options.plot, options.out.parent)] if options.plot else []
        command = command_line("eval.seed_tts.report", argv)
        shown = {"command": command, "tables": tables(results), "figures": figures, "runs": results}
        write_json(options.out, shown)
    print(markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
