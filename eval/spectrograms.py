"""Plot spectrograms of several files up to 5 kHz, one above the other, to compare them by eye.

    python -m eval.spectrograms out.png prompt=prompt.flac "depth 4=depth-4.wav" teacher=teacher.wav

Each panel has the loudest of its own file at the top of its scale. Harmonics are thin parallel lines, and
formants the broad bands in which they are bright; mush has neither.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from eval.common.results import require_place
from inference.demo.spectrogram import HOP, WINDOW
from tokenizer import AudioError, load_audio

SAMPLE_RATE, HIGHEST = 24_000, 5000
"""Hz; harmonics above are too close to tell apart."""
HEADROOM_DB, RANGE_DB = 12, 45
"""What is so far below the loudest is white, and so far below that black."""


def named(text: str) -> tuple[str, Path]:
    """Parse `LABEL=FILE`, for argparse.

    Args:
        text: The argument.

    Returns:
        The label and the file.

    Raises:
        ArgumentTypeError: If the label, the equals sign or the file is missing.
    """
    label, separator, path = text.partition("=")
    if not (label and separator and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not LABEL=FILE such as prompt=prompt.flac")
    return label, Path(path)


def draw(out: Path, files: list[tuple[str, Path]]) -> None:
    """Draw the spectrograms of files, one above the other; the time axis is that of the longest.

    Args:
        out: The picture to write.
        files: Label and audio file of each panel, from top to bottom.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sounds = [(label, load_audio(path, SAMPLE_RATE).numpy()) for label, path in files]
    figure, axes = pyplot.subplots(
        len(sounds), 1, figsize=(9, 2.2 * len(sounds)), sharex=True, squeeze=False, layout="constrained"
    )
    for axis, (label, audio) in zip(axes[:, 0], sounds, strict=True):
        with np.errstate(divide="ignore"):  # of digital silence
            power, *_ = axis.specgram(
                audio, NFFT=WINDOW, Fs=SAMPLE_RATE, noverlap=WINDOW - HOP, cmap="inferno"
            )
        top = 10 * np.log10(max(power.max(), 1e-12)) - HEADROOM_DB
        axis.images[0].set_clim(top - RANGE_DB, top)
        axis.set_facecolor("black")
        axis.set_ylim(0, HIGHEST)
        axis.set_title(label, fontsize=9, loc="left")
        axis.set_yticks([0, HIGHEST], ["0", f"{HIGHEST / 1000:g} kHz"], fontsize=8)
    axes[-1, 0].set_xlim(0, max(len(audio) for _, audio in sounds) / SAMPLE_RATE)
    axes[-1, 0].set_xlabel("seconds", fontsize=8)
    figure.savefig(out, dpi=80)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when it ran, 2 with one line on the standard error stream when it could not."""
    parser = argparse.ArgumentParser(prog="python -m eval.spectrograms", description="Draw spectrograms.")
    parser.add_argument("out", type=Path, help="picture to write: png, svg or pdf")
    parser.add_argument("files", type=named, nargs="+", metavar="LABEL=FILE", help="from top to bottom")
    options = parser.parse_args(argv)
    try:
        require_place(options.out)
        draw(options.out, options.files)
    except (ValueError, OSError, AudioError) as error:
        print(f"eval.spectrograms: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
