import json
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers import voxbox as fixture
from tests.helpers.voxbox import index_of
from training.data.archives import members
from training.data.manifest import read_manifest
from training.data.voxbox import voxbox


@pytest.mark.parametrize("layout", ["tar", "files"])
def test_both_layouts_give_all_twenty_clips(
    imported: dict[str, tuple[Path, fixture.Planted]], layout: str
) -> None:
    manifest, planted = imported[layout]
    clips = {index_of(clip): clip for clip in read_manifest(manifest)}
    assert clips.keys() == planted.texts.keys()
    for index, clip in clips.items():
        corpus = "vctk" if index.startswith("VCTK") else "casia"
        assert clip.source == corpus
        assert clip.license == {"vctk": "CC-BY-4.0", "casia": "research only"}[corpus]
        assert clip.text == (None if index == planted.faults["no text"] else planted.texts[index])
        assert clip.speaker == planted.speakers.get(index, "")
        labelled_english = corpus == "vctk" or index == planted.faults["language"]
        assert clip.language == ("en" if labelled_english else "zh")
        here = index != planted.faults["missing audio"]
        assert clip.audio.exists() == here
        assert bool(clip.member) == (layout == "tar" and here)
    assert clips[planted.unmeasured].duration == pytest.approx(1.6)
    assert clips[planted.faults["duration"]].duration == 9.5


def test_what_is_missing_is_counted(tmp_path: Path) -> None:
    planted = fixture.voxbox(tmp_path, "tar")
    path = tmp_path / "metadata" / "vctk.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    by_index = {record["index"]: record for record in records}
    del by_index[planted.faults["missing audio"]]["duration"]
    del by_index["VCTK_0000000000"]["wav_path"]
    del by_index["VCTK_0000000001"]["language"]
    lines = [json.dumps(record) for record in records]
    path.write_text("\n".join([*lines, "{broken", "[1]", "", '{"text": "no name"}']))
    missed: Counter[str] = Counter()
    clips = list(voxbox(tmp_path, missed, ["vctk", "meld"]))
    assert missed == {
        "meld: no metadata": 1,
        "vctk: no audio": 1,
        "vctk: no duration": 2,
        "vctk: left out, duration unknown": 1,
        "vctk: no language": 1,
        "vctk: no speaker": 1,
        "vctk: broken record, or neither wav_path nor index": 3,
    }
    assert len(clips) == 9
    assert {clip.language for clip in clips} == {"en"}
    assert clips[5].member == "vctk/VCTK_0000000000.flac"


def test_clips_come_in_the_order_of_the_archives(imported: dict[str, tuple[Path, fixture.Planted]]) -> None:
    manifest, _ = imported["tar"]
    clips = [clip for clip in read_manifest(manifest) if clip.member]
    archives = list(dict.fromkeys(clip.audio for clip in clips))
    assert [archive.name for archive in archives] == [
        *["casia_0000.tar.gz", "casia_0001.tar.gz", "vctk_0000.tar.gz", "vctk_0001.tar.gz"]
    ]
    stored = [name for archive in archives for name, _ in members(archive)]
    assert [clip.member for clip in clips] == stored
    assert [index_of(clip) for clip in clips] != sorted(map(index_of, clips))


def test_an_archive_that_is_cut_off_costs_what_is_behind_the_cut(tmp_path: Path) -> None:
    fixture.voxbox(tmp_path, "tar")
    archive = tmp_path / "audios" / "casia" / "casia_0000.tar.gz"
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) // 2])
    missed: Counter[str] = Counter()
    clips = list(voxbox(tmp_path, missed, ["casia"]))
    assert missed["casia_0000.tar.gz: cut off, or no archive"] == 1
    assert len(clips) == 10 and 1 <= missed["casia: no audio"] < 5


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vctk.tsv", "VCTK_0000000003\tp9\n"),
        ("vctk.csv", "VCTK_0000000003,p9\n"),
        ("vctk.txt", "vctk/VCTK_0000000003.flac p9\n"),
        ("vctk.json", '{"VCTK_0000000003": "p9"}'),
        ("vctk.jsonl", '{"index": "VCTK_0000000003", "speaker_id": "p9"}\n'),
    ],
)
def test_speakers_are_joined_from_any_of_these(tmp_path: Path, name: str, content: str) -> None:
    fixture.voxbox(tmp_path, "files")
    (tmp_path / "speaker_ids" / "vctk.tsv").unlink()
    (tmp_path / "speaker_ids" / name).write_text(content)
    speakers = {index_of(clip): clip.speaker for clip in voxbox(tmp_path, Counter(), ["vctk"])}
    assert speakers.pop("VCTK_0000000003") == "vctk/p9"
    assert set(speakers.values()) == {""}


def test_a_folder_without_metadata_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no metadata/: give the folder"):
        list(voxbox(tmp_path, Counter()))
