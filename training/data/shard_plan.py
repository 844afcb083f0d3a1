"""Assign the clips of a manifest to shards, without ever holding all of them in memory."""

import hashlib
import json
import logging
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from training.data.manifest import Clip, iterate_manifest

logger = logging.getLogger(__name__)


class Shard(NamedTuple):
    """Clips that are neighbours in the manifest, of at most one archive."""

    number: int
    offset: int
    """Byte of the manifest at which they begin."""
    clips: int
    """Number of clips."""
    owner: int
    """Running number of archives and of shards outside them: shards of one archive belong to one process."""


def plan(manifest: Path, max_seconds: float, clips_per_shard: int) -> tuple[list[Shard], str]:
    """Divide a manifest into shards.

    Args:
        manifest: the manifest; clips without the words of one speaker are left out.
        max_seconds: longer clips are left out.
        clips_per_shard: most clips of a shard.

    Returns:
        The shards, and a SHA-256 of their clips, which stays the same when a corpus moves to another folder.

    Raises:
        ValueError: no clip is left.
    """
    if clips_per_shard < 1:
        raise ValueError(f"clips_per_shard={clips_per_shard}: give 1 or more")
    digest, shards = hashlib.sha256(), []
    counts: Counter[str] = Counter()
    begin, clips, archive, owner = 0, 0, None, -1
    for offset, clip in iterate_manifest(manifest):
        if not _wanted(clip, max_seconds, counts):
            continue
        described = (clip.name, clip.duration, clip.text, clip.speaker)
        digest.update(json.dumps(described).encode())
        inside = clip.audio if clip.member else None
        if clips and (clips == clips_per_shard or inside != archive):
            shards.append(Shard(len(shards), begin, clips, owner))
            clips = 0
        if not clips:
            begin = offset
            owner += inside is None or inside != archive
        archive, clips = inside, clips + 1
    logger.info("%d clips with text, %d of them too long", counts["text"], counts["long"])
    if not clips:
        raise ValueError(f"{manifest}: no clip has a text and at most {max_seconds} s")
    return [*shards, Shard(len(shards), begin, clips, owner)], digest.hexdigest()


def clips_of(manifest: Path, shard: Shard, max_seconds: float) -> list[Clip]:
    """Read the clips of a shard that `plan` returned for the same manifest and `max_seconds`."""
    clips: list[Clip] = []
    for _, clip in iterate_manifest(manifest, shard.offset):
        if _wanted(clip, max_seconds, Counter()):
            clips.append(clip)
            if len(clips) == shard.clips:
                break
    return clips


def _wanted(clip: Clip, max_seconds: float, counts: Counter[str]) -> bool:
    spoken, short = bool(clip.text) and clip.task == "asr", clip.duration <= max_seconds
    counts["text"] += spoken
    counts["long"] += spoken and not short
    return spoken and short
