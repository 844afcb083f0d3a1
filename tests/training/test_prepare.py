import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.helpers.voxbox import Planted
from tokenizer import AudioTokenizer, load_audio
from tokenizer.config import tiny
from training.data.code_shards import CodesInfo, read_codes, read_info
from training.data.manifest import read_manifest, write_manifest
from training.prepare import PrepareOptions, main, prepare, summarize

pytestmark = pytest.mark.usefixtures("datasets_cache")


@pytest.fixture
def few(corpus: Path, tmp_path: Path) -> Path:
    """A manifest of ten of the corpus's clips."""
    write_manifest(tmp_path / "few.jsonl", read_manifest(corpus)[:10])
    return tmp_path / "few.jsonl"


def options(out: Path, manifest: Path, codec: Path, **changes) -> PrepareOptions:
    usual = {"clips_per_shard": 4, "readers": 1}
    return PrepareOptions(out=out, manifest=manifest, tokenizer=str(codec), **{**usual, **changes})


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.iterdir())}


def rows_of(folder: Path) -> list[dict]:
    return [{**row, "codes": row["codes"].tolist()} for row in read_codes(folder)]


def test_rows_are_the_codes_of_each_clip_alone(corpus: Path, codec: Path, codes: Path) -> None:
    rows, tokenizer = read_codes(codes), AudioTokenizer.from_pretrained(codec)
    clips = read_manifest(corpus)
    assert len(rows) == len(clips)
    for clip, row in zip(clips, rows, strict=True):
        direct = tokenizer.encode(load_audio(clip.audio)[None])[0]
        assert (row["text"], row["speaker"], row["language"]) == (clip.text, clip.speaker, "en")
        assert (row["source"], row["frames"]) == ("synthetic", len(direct))
        assert torch.equal(torch.tensor(row["codes"]), direct.short())
        assert len(direct.unique(dim=0)) > 5  # codes do differ


@pytest.mark.parametrize("batch_seconds", [0.1, 4.0])
def test_batching_does_not_matter(few: Path, codec: Path, tmp_path: Path, batch_seconds: float) -> None:
    prepare(options(tmp_path / "one", few, codec, batch_seconds=batch_seconds, readers=3))
    prepare(options(tmp_path / "other", few, codec, clips_per_shard=100))
    assert rows_of(tmp_path / "one") == rows_of(tmp_path / "other")
    assert len(list((tmp_path / "one").glob("*.parquet"))) == 3


def test_the_description_says_what_the_codes_are(few: Path, codec: Path, tmp_path: Path) -> None:
    info = prepare(options(tmp_path / "codes", few, codec))
    assert info == read_info(tmp_path / "codes")
    assert (info.num_codebooks, info.codebook_size, info.clips, info.frame_rate) == (6, 32, 10, 12.5)
    assert info.shards == ["codes-00000.parquet", "codes-00001.parquet", "codes-00002.parquet"]
    assert isinstance(info, CodesInfo)


def test_a_second_call_writes_nothing(few: Path, codec: Path, tmp_path: Path) -> None:
    prepare(options(tmp_path / "codes", few, codec))
    written = files(tmp_path / "codes")
    assert sorted(written) == [*(f"codes-0000{i}.parquet" for i in range(3)), "codes.json"]
    prepare(options(tmp_path / "codes", few, codec))
    assert files(tmp_path / "codes") == written


def test_a_missing_shard_is_noticed_and_made_again(few: Path, codec: Path, tmp_path: Path) -> None:
    folder = tmp_path / "codes"
    prepare(options(folder, few, codec))
    rows, written = rows_of(folder), files(folder)
    (folder / "codes-00001.parquet").unlink()
    (folder / "codes-00001.tmp").write_bytes(written["codes-00001.parquet"][1][:99])  # as kill -9 leaves it
    with pytest.raises(ValueError, match=r"lacks codes-00001\.parquet: run `python -m training\.prepare`"):
        read_codes(folder)
    prepare(options(folder, few, codec))
    assert rows_of(folder) == rows
    assert files(folder).keys() == written.keys()
    for name in ("codes-00000.parquet", "codes-00002.parquet", "codes.json"):
        assert files(folder)[name] == written[name]


def test_broken_and_missing_clips_are_skipped_and_listed(few: Path, codec: Path, tmp_path: Path) -> None:
    clips = read_manifest(few)
    (tmp_path / "broken.flac").write_bytes(b"no sound")
    changed = {5: "broken.flac", 7: "gone.flac"}
    clips = [
        replace(clip, audio=tmp_path / changed[i]) if i in changed else clip for i, clip in enumerate(clips)
    ]
    write_manifest(few, clips)
    info = prepare(options(tmp_path / "codes", few, codec))
    lines = (tmp_path / "codes" / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["clip"] for line in lines] == ["broken.flac", "gone.flac"]
    assert "not readable as audio" in lines[0] and "no such file" in lines[1]
    texts = [clip.text for i, clip in enumerate(clips) if i not in changed]
    assert read_codes(tmp_path / "codes")["text"][:] == texts
    assert info.clips == 10


def test_a_shard_of_broken_clips_alone_is_empty(few: Path, codec: Path, tmp_path: Path) -> None:
    clips = read_manifest(few)
    gone = [replace(clip, audio=tmp_path / f"gone{i}.flac") for i, clip in enumerate(clips[4:8])]
    write_manifest(few, [*clips[:4], *gone, *clips[8:]])
    prepare(options(tmp_path / "codes", few, codec))
    assert len(read_codes(tmp_path / "codes")) == 6
    assert len((tmp_path / "codes" / "skipped.jsonl").read_text().splitlines()) == 4


def test_a_disk_that_is_gone_is_no_empty_shard(few: Path, codec: Path, tmp_path: Path) -> None:
    clips = read_manifest(few)
    gone = [replace(clip, audio=tmp_path / "unmounted" / clip.audio.name) for clip in clips[4:]]
    write_manifest(few, [*clips[:4], *gone])
    with pytest.raises(
        ValueError, match=r"unmounted/.*: not there, nor its folder, nor any other of shard 1"
    ):
        prepare(options(tmp_path / "codes", few, codec))
    assert sorted(files(tmp_path / "codes")) == ["codes-00000.parquet", "codes.json"]


def test_another_tokenizer_is_refused(
    few: Path, codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(options(tmp_path / "codes", few, codec))
    torch.manual_seed(1)
    AudioTokenizer(tiny()).save_pretrained(tmp_path / "other")
    written = files(tmp_path / "codes")
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "codes"), "--manifest", str(few), "--tokenizer", str(tmp_path / "other")])
    assert ended.value.code == 2
    assert (
        "codes of another tokenizer or corpus, or shards of another size: choose an empty"
        in capsys.readouterr().err
    )
    assert files(tmp_path / "codes") == written


def test_another_corpus_of_as_many_clips_is_refused(few: Path, codec: Path, tmp_path: Path) -> None:
    prepare(options(tmp_path / "codes", few, codec))
    clips = read_manifest(few)
    write_manifest(few, [*clips[:9], replace(clips[9], text="Something else.")])
    with pytest.raises(ValueError, match="another tokenizer or corpus"):
        prepare(options(tmp_path / "codes", few, codec))


def test_shards_of_another_size_are_refused(few: Path, codec: Path, tmp_path: Path) -> None:
    prepare(options(tmp_path / "codes", few, codec, clips_per_shard=5))
    with pytest.raises(ValueError, match="or shards of another size: choose an empty folder"):
        prepare(options(tmp_path / "codes", few, codec, clips_per_shard=9))  # two shards as well


def test_clips_without_text_and_long_ones_are_left_out(few: Path, codec: Path, tmp_path: Path) -> None:
    clips = sorted(read_manifest(few), key=lambda clip: clip.duration)
    write_manifest(few, [replace(clips[0], text=None), *clips[1:], replace(clips[9], duration=0.5)])
    limit = clips[6].duration
    info = prepare(options(tmp_path / "codes", few, codec, max_seconds=limit))
    assert info.clips == 7
    assert read_codes(tmp_path / "codes")["text"][:] == [clip.text for clip in clips[1:7]]
    assert f"more than {limit:g} s" in (tmp_path / "codes" / "skipped.jsonl").read_text()


def test_a_corpus_without_text_is_refused(few: Path, codec: Path, tmp_path: Path) -> None:
    write_manifest(few, [replace(clip, text=None) for clip in read_manifest(few)])
    with pytest.raises(ValueError, match=r"few\.jsonl: no clip has a text"):
        prepare(options(tmp_path / "codes", few, codec))


def test_archives_and_files_give_the_same_codes(
    imported: dict[str, tuple[Path, Planted]], codec: Path, tmp_path: Path
) -> None:
    found = {}
    for layout, (manifest, planted) in imported.items():
        prepare(options(tmp_path / layout, manifest, codec, clips_per_shard=3))
        found[layout] = {row["text"]: row for row in rows_of(tmp_path / layout)}
        skipped = (tmp_path / layout / "skipped.jsonl").read_text()
        assert len(skipped.splitlines()) == 2
        assert planted.faults["missing audio"] in skipped and planted.faults["broken audio"] in skipped
    assert found["tar"] == found["files"]
    assert len(found["tar"]) == 17  # of twenty, one has no text and two no audio


def test_the_summary_tells_bits_and_what_voxbox_would_take(few: Path, codec: Path, tmp_path: Path) -> None:
    prepare(options(tmp_path / "codes", few, codec))
    frames = sum(read_codes(tmp_path / "codes")["frames"][:])
    size = sum(path.stat().st_size for path in (tmp_path / "codes").glob("*.parquet"))
    summary = summarize(tmp_path / "codes")
    assert summary.startswith(f"10 clips, {frames / 12.5 / 3600:.2f} h, ")
    assert f", {8 * size / frames / 6:.2f} with the texts (a code needs 5)" in summary
    assert f"102500 h would take {size / frames * 102_500 * 3600 * 12.5 / 1e9:.0f} GB" in summary
