"""Draw the quality of a reconstruction over the bitrate."""

from collections.abc import Sequence
from pathlib import Path

from eval.reconstruction.tables import DISTANCES, LABELS, SPEECH


def draw(path: Path, summary: Sequence[dict], similarity: str) -> None:
    """Draw each metric over the bitrate, one line a codec; each kind of audio has panels of distances.

    Args:
        path: The picture to write.
        summary: Rows of `summarize`.
        similarity: The name of the speaker encoder, for the title of SIM.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = [kind for kind in ("speech", "sound", "music") if any(row["kind"] == kind for row in summary)]
    wanted = [("speech", name) for name in SPEECH if "speech" in kinds]
    wanted += [(kind, name) for name in DISTANCES for kind in kinds]
    columns = 4 if "speech" in kinds else 3
    rows = -(-len(wanted) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(3.4 * columns, 2.7 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(wanted) :]:
        axis.set_visible(False)
    for axis, (kind, name) in zip(axes.flat, wanted, strict=False):
        for codec in dict.fromkeys(row["codec"] for row in summary):
            points = sorted(
                (row["bitrate"] / 1000, row[name])
                for row in summary
                if row["codec"] == codec and row["kind"] == kind and row[name] is not None
            )
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1.2, label=codec)
        label = f"SIM ({similarity})" if name == "similarity" else LABELS[name]
        better = "higher" if name in SPEECH else "lower"
        axis.set_title(f"{kind}: {label} ({better} is better)", fontsize=8)
        axis.set_xscale("log")
        axis.set_xlabel("kbit/s", fontsize=8)
        axis.tick_params(labelsize=7, which="both")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
