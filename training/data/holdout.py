"""Split corpora into clips to train on and clips to test on.

    python -m training.data.holdout OUT --manifests A.jsonl B.jsonl

OUT/test.jsonl has only clips of held-out speakers; OUT/train.jsonl has no clip of these speakers, and none
with a sentence of the test. Who is held out depends on the speaker's name alone, so that corpora that are
built or joined later are split alike.
"""

import hashlib
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from training.data.manifest import Clip, read_manifest, write_manifest

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class HoldoutOptions:
    """Which corpora to split, and how much of them to hold out."""

    out: Annotated[Path, tyro.conf.Positional]
    manifests: tuple[Path, ...]
    speakers: float = 0.1
    """Part of the speakers that are held out."""
    clips: int = 100
    """Most test clips of a source; other clips of held-out speakers are in neither list."""


def split(clips: Iterable[Clip], speakers: float, most: int) -> tuple[list[Clip], list[Clip]]:
    """Split the clips that have a text.

    Args:
        clips: all clips.
        speakers: part of the speakers that is held out, between 0 and 1.
        most: most test clips of a source.

    Returns:
        Clips to train on, and clips to test on.

    Raises:
        ValueError: either would be empty.
    """
    if not 0 < speakers < 1:
        raise ValueError(f"speakers={speakers}: give the part to hold out, between 0 and 1")
    spoken = [clip for clip in clips if clip.text]
    held_out = [clip for clip in spoken if _fraction(clip.speaker) < speakers]
    test: list[Clip] = []
    for source in dict.fromkeys(clip.source for clip in held_out):
        of_source = [clip for clip in held_out if clip.source == source]
        test += sorted(of_source, key=lambda clip: _fraction(f"{clip.speaker} {clip.text}"))[:most]
    test_sentences = {sentence for clip in test for sentence in split_sentences(clip.text or "")}
    rest = [clip for clip in spoken if _fraction(clip.speaker) >= speakers]
    train = [clip for clip in rest if test_sentences.isdisjoint(split_sentences(clip.text or ""))]
    if not train or not test:
        raise ValueError(
            f"{len(spoken)} clips give {len(train)} to train on and {len(test)} to test: hold out "
            f"{'fewer' if test else 'more'} speakers"
        )
    return train, test


def split_sentences(text: str) -> list[str]:
    """Split a text into sentences in lower case and without punctuation.

    So no way of writing hides that two are the same.
    """
    parts = re.split(r"[.!?\u3002\uff01\uff1f]+", text.lower())
    return [words for part in parts if (words := " ".join(re.findall(r"\w+", part)))]


def _fraction(name: str) -> float:
    """Return a number in [0, 1) that depends on the name alone, on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48


def hold_out(options: HoldoutOptions) -> None:
    """Write OUT/train.jsonl and OUT/test.jsonl.

    Raises:
        ValueError: see `split`.
    """
    clips = [clip for path in options.manifests for clip in read_manifest(path)]
    train, test = split(clips, options.speakers, options.clips)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, part in {"train": train, "test": test}.items():
        write_manifest(options.out / f"{name}.jsonl", part)
        hours = sum(clip.duration for clip in part) / 3600
        speakers = len({clip.speaker for clip in part})
        logger.info("%s: %d clips, %.2f h, %d speakers", name, len(part), hours, speakers)


def main(argv: list[str] | None = None) -> None:
    """Run the command line: `python -m training.data.holdout --help`."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    hold_out(tyro.cli(HoldoutOptions, args=argv, description=__doc__))


if __name__ == "__main__":
    main()
