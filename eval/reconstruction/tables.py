"""The tables of a reconstruction: in the layout of the paper's Table 2, and in full."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from eval.common.results import Table, mean
from eval.reconstruction.codebook_usage import bitrate_efficiency, codebook_use
from eval.reconstruction.codecs import Setting

SPEECH = ("similarity", "stoi", "pesq_nb", "pesq_wb")
DISTANCES = ("mel_distance_two", "mel_distance", "stft_distance")
METRICS = (*SPEECH, *DISTANCES)
LABELS = {
    "similarity": "SIM",
    "stoi": "STOI",
    "pesq_nb": "PESQ-NB",
    "pesq_wb": "PESQ-WB",
    "mel_distance_two": "mel, 2 windows",
    "mel_distance": "mel, 7 scales",
    "stft_distance": "STFT",
}
RANGES = {"below 1,500": 0, "1,500 to 3,000": 1500, "3,000 to 6,000": 3000, "above 6,000": 6001}
"""bit/s: the three groups of the paper's Table 2, and what lies above them."""


def metrics_of(kind: str) -> tuple[str, ...]:
    """Return the metrics of a kind of audio: PESQ, STOI and SIM have a meaning for speech only.

    Args:
        kind: "speech", "sound" or "music".
    """
    return METRICS if kind == "speech" else DISTANCES


def summarize(records: Sequence[dict], setting: Setting, kind: str) -> dict:
    """Average the records of a setting over the files of a kind for which a metric exists.

    Args:
        records: The records of all files, see `measure_file`.
        setting: The setting.
        kind: The kind of audio.

    Returns:
        The setting, the mean bitrate in bit/s, the mean of each metric, and by metric how many files lack it.
    """
    of_setting = [r for r in records if r["setting"] == setting.name and r["kind"] == kind]
    failures = {name: sum(r[name] is None for r in of_setting) for name in metrics_of(kind)}
    return {
        "setting": setting.name,
        "codec": setting.codec,
        "kind": kind,
        "depth": setting.depth,
        "frame_rate": setting.frame_rate,
        "bitrate": mean(r["bitrate"] for r in of_setting),
        "files": len(of_setting),
        **{name: mean(r[name] for r in of_setting) for name in metrics_of(kind)},
        "failures": {name: count for name, count in failures.items() if count},
    }


def paper_tables(summary: Sequence[dict], similarity: str) -> list[Table]:
    """Return a table for each range of bitrates, in the layout of the paper's Table 2.

    Args:
        summary: Rows of `summarize`.
        similarity: The name of the speaker encoder, for the head of SIM.

    Returns:
        Tables with sound / music in one cell; "failed" counts metrics without a value.
    """
    by_name: dict[str, dict[str, dict]] = {}
    for row in summary:
        by_name.setdefault(row["setting"], {})[row["kind"]] = row
    head = ["codec", "bit/s", "frames/s", "codebooks"]
    head += [f"SIM ({similarity})", *(LABELS[name] for name in SPEECH[1:])]
    head += [f"{LABELS[name]}, sound / music" for name in DISTANCES] + ["failed"]
    tables, floors = [], [*RANGES.values(), float("inf")]
    for (name, floor), ceiling in zip(RANGES.items(), floors[1:], strict=True):
        rows = []
        for kinds in by_name.values():
            bitrate = mean(row["bitrate"] for row in kinds.values())
            if bitrate is not None and floor <= round(bitrate) < ceiling:
                rows.append(_paper_row(kinds, bitrate))
        if rows:
            tables.append(Table(title=f"{name} bit/s", head=head, rows=sorted(rows, key=lambda row: row[1])))
    return tables


def _paper_row(kinds: dict[str, dict], bitrate: float) -> list:
    first = next(iter(kinds.values()))
    speech, sound, music = (kinds.get(kind, {}) for kind in ("speech", "sound", "music"))
    label = first["codec"] if first["depth"] else first["setting"]
    cells = [label, round(bitrate), first["frame_rate"] and round(first["frame_rate"], 2), first["depth"]]
    cells += [speech.get(name) for name in SPEECH]
    cells += [f"{_number(sound.get(name))} / {_number(music.get(name))}" for name in DISTANCES]
    return [*cells, sum(sum(row["failures"].values()) for row in kinds.values())]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def full_table(summary: Sequence[dict], kind: str) -> Table:
    """Return a table of every setting of one kind of audio, with failures by metric.

    Args:
        summary: Rows of `summarize`.
        kind: The kind of audio.
    """
    rows = [row for row in summary if row["kind"] == kind]
    names = metrics_of(kind)
    cells = [
        [
            row["setting"],
            row["bitrate"] and round(row["bitrate"]),
            row["files"],
            *(row[name] for name in names),
            row["failures"],
        ]
        for row in rows
    ]
    head = ["setting", "bit/s", "files", *(LABELS[name] for name in names), "failed"]
    return Table(title=f"{kind.capitalize()}, all settings", head=head, rows=cells)


def failure_table(records: Sequence[dict]) -> Table:
    """Return a table of every reason why a metric has no value, and for how many files.

    Args:
        records: The records of all files, see `measure_file`.
    """
    counts = Counter(
        (record["kind"], record["setting"], LABELS[name], reason)
        for record in records
        for name, reason in record["failures"].items()
    )
    rows = [[*key, count] for key, count in sorted(counts.items())]
    title = f"Metrics without a value: {sum(counts.values())}"
    return Table(title=title, head=["kind", "setting", "metric", "reason", "files"], rows=rows)


def codebook_tables(files: Sequence[dict]) -> list[Table]:
    """Return a table for each codec: the usage of each codebook over all files, and the bitrate efficiency.

    Args:
        files: For each file, by codec, the codebook size and the codes [t, k].
    """
    tables = []
    for codec in dict.fromkeys(name for file in files for name in file):
        size = next(file[codec][0] for file in files if codec in file)
        codes = [np.array(file[codec][1], dtype=np.int64) for file in files if codec in file]
        uses, frames = codebook_use(codes, size), sum(map(len, codes))
        rows: list[list[object]] = [
            [n, use.used, use.entropy, use.perplexity] for n, use in enumerate(uses, 1)
        ]
        rows.append(["all: bitrate efficiency", None, bitrate_efficiency(uses, size), None])
        most = np.log2(min(size, frames))
        title = f"Codebooks of {codec}: {size:,} codes, {frames:,} frames, so at most {most:.1f} bits each"
        head = ["codebook", "share used", "entropy, bits", "perplexity"]
        tables.append(Table(title=title, head=head, rows=rows))
    return tables
