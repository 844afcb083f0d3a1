"""Split corpora into clips to train on and clips to judge with.

    python -m training.data.holdout OUT --manifests A.jsonl B.jsonl

OUT/test.jsonl has only clips of held-out speakers; OUT/train.jsonl has no clip of these speakers, and none in
which a sentence of the test is said. Who is held out depends on the speaker's name alone, so that corpora
that are built or joined later are split alike.
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
    """Which corpora, and how much of them."""

    out: Annotated[Path, tyro.conf.Positional]
    manifests: tuple[Path, ...]
    speakers: float = 0.1
    """Part of the speakers that are held out."""
    clips: int = 100
    """Test clips of a source at most; what else held-out speakers say is in neither list."""


def split(clips: Iterable[Clip], speakers: float, most: int) -> tuple[list[Clip], list[Clip]]:
    """(train, test) of the clips with a text."""
    if not 0 < speakers < 1:
        raise ValueError(f"speakers={speakers}: give the part to hold out, between 0 and 1")
    spoken = [clip for clip in clips if clip.text]
    secret = [clip for clip in spoken if _share(clip.speaker) < speakers]
    test: list[Clip] = []
    for source in dict.fromkeys(clip.source for clip in secret):
        own = [clip for clip in secret if clip.source == source]
        test += sorted(own, key=lambda clip: _share(f"{clip.speaker} {clip.text}"))[:most]
    said = {sentence for clip in test for sentence in sentences(clip.text or "")}
    rest = [clip for clip in spoken if _share(clip.speaker) >= speakers]
    train = [clip for clip in rest if said.isdisjoint(sentences(clip.text or ""))]
    if not train or not test:
        raise ValueError(
            f"{len(spoken)} clips give {len(train)} to train on and {len(test)} to test: hold out "
            f"{'fewer' if test else 'more'} speakers"
        )
    return train, test


def sentences(text: str) -> list[str]:
    """In lower case and without punctuation, so that no way of writing hides that two are the same."""
    parts = re.split(r"[.!?\u3002\uff01\uff1f]+", text.lower())
    return [found for part in parts if (found := " ".join(re.findall(r"\w+", part)))]


def _share(name: str) -> float:
    """A number in [0, 1) that is the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48


def hold_out(options: HoldoutOptions) -> None:
    """Write the two lists."""
    clips = [clip for path in options.manifests for clip in read_manifest(path)]
    train, test = split(clips, options.speakers, options.clips)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, part in {"train": train, "test": test}.items():
        write_manifest(options.out / f"{name}.jsonl", part)
        hours = sum(clip.duration for clip in part) / 3600
        speakers = len({clip.speaker for clip in part})
        logger.info("%s: %d clips, %.2f h, %d speakers", name, len(part), hours, speakers)


def main(argv: list[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    hold_out(tyro.cli(HoldoutOptions, args=argv, description=__doc__))


if __name__ == "__main__":
    main()
