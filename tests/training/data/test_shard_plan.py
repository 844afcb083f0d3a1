import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from training.data.manifest import read_manifest, write_manifest
from training.data.shard_plan import clips_of, plan


@pytest.fixture
def few(corpus: Path, tmp_path: Path) -> Path:
    """A manifest of ten of the corpus's clips."""
    write_manifest(tmp_path / "few.jsonl", read_manifest(corpus)[:10])
    return tmp_path / "few.jsonl"


def test_shards_are_runs_of_wanted_clips(few: Path) -> None:
    clips = read_manifest(few)
    unwanted = [
        replace(clips[0], text=None),
        replace(clips[0], duration=31.0),
        replace(clips[0], task="caption"),
    ]
    write_manifest(few, [unwanted[0], *clips[:4], *unwanted[1:], *clips[4:]])
    shards, _ = plan(few, 30.0, 3)
    assert [shard.clips for shard in shards] == [3, 3, 3, 1]
    assert [clip for shard in shards for clip in clips_of(few, shard, 30.0)] == clips


def test_the_digest_changes_with_a_clip_and_not_with_its_place(few: Path, tmp_path: Path) -> None:
    shards, digest = plan(few, 30.0, 4)
    clips = read_manifest(few)
    (tmp_path / "moved").mkdir()
    moved = [replace(clip, audio=Path(shutil.copy(clip.audio, tmp_path / "moved"))) for clip in clips]
    write_manifest(few, moved)
    assert plan(few, 30.0, 4)[1] == digest
    for change in ({"text": "Other."}, {"speaker": "other"}, {"duration": 1.0}, {"member": "a"}):
        write_manifest(few, [*clips[:9], replace(clips[9], **change)])
        assert plan(few, 30.0, 4)[1] != digest
    assert len(shards) == 3


def test_an_archive_belongs_to_one_process_and_loose_shards_take_turns(few: Path, tmp_path: Path) -> None:
    clips = read_manifest(few)
    packed = [
        replace(clip, audio=tmp_path / f"{i // 5}.tar.gz", member=clip.audio.name)
        for i, clip in enumerate(clips)
    ]
    write_manifest(few, [*packed, *clips])
    shards, _ = plan(few, 30.0, 3)
    assert [(shard.clips, shard.owner) for shard in shards] == [
        *[(3, 0), (2, 0), (3, 1), (2, 1)],
        *[(3, 2), (3, 3), (3, 4), (1, 5)],
    ]
    assert [shard.number for shard in shards] == list(range(8))


def test_shards_of_nothing_are_refused(few: Path) -> None:
    with pytest.raises(ValueError, match="clips_per_shard=0: give 1 or more"):
        plan(few, 30.0, 0)
    with pytest.raises(ValueError, match=r"few\.jsonl: no clip has a text and at most 0\.1 s"):
        plan(few, 0.1, 4)
