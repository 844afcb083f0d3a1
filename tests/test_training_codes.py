import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tokenizer import AudioTokenizer, load_audio
from tokenizer.config import tiny
from training.codes import CodesInfo, CodesOptions, encode_corpus, read_codes, read_info
from training.manifest import read_manifest, write_manifest

pytestmark = pytest.mark.usefixtures("datasets_cache")


@pytest.fixture
def few(corpus: Path, tmp_path: Path) -> Path:
    """A manifest of ten of the corpus's clips, a shard of four and a half."""
    write_manifest(tmp_path / "few.jsonl", read_manifest(corpus)[:10])
    return tmp_path / "few.jsonl"


def options(out: Path, manifest: Path, codec: Path, **changes) -> CodesOptions:
    return CodesOptions(out=out, manifest=manifest, tokenizer=codec, **{"clips_per_shard": 4, **changes})


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.iterdir())}


def test_rows_are_the_codes_of_each_clip_alone(corpus: Path, codec: Path, codes: Path) -> None:
    rows, tokenizer = read_codes(codes), AudioTokenizer.from_pretrained(codec)
    clips = read_manifest(corpus)
    assert rows.num_rows == len(clips)
    for i, clip in enumerate(clips):
        row = rows[i]
        direct = tokenizer.encode(load_audio(clip.audio)[None])[0]
        assert (row["text"], row["speaker"], row["language"]) == (clip.text, clip.speaker, "en")
        assert row["frames"] == len(direct) == len(row["codes"])
        assert torch.equal(torch.tensor(row["codes"]), direct)
        assert len(direct.unique(dim=0)) > 5  # codes do differ


@pytest.mark.parametrize("batch_seconds", [0.1, 4.0])
def test_batching_does_not_matter(few: Path, codec: Path, tmp_path: Path, batch_seconds: float) -> None:
    encode_corpus(options(tmp_path / "one", few, codec, batch_seconds=batch_seconds))
    encode_corpus(options(tmp_path / "other", few, codec, clips_per_shard=100))
    assert read_codes(tmp_path / "one")[:] == read_codes(tmp_path / "other")[:]
    assert len(list((tmp_path / "one").glob("*.parquet"))) == 3


def test_the_description_says_what_the_codes_are(few: Path, codec: Path, tmp_path: Path) -> None:
    info = encode_corpus(options(tmp_path / "codes", few, codec))
    assert info == read_info(tmp_path / "codes")
    assert (info.num_codebooks, info.codebook_size, info.clips, info.clips_per_shard) == (6, 32, 10, 4)
    assert info.shards == ["codes-00000.parquet", "codes-00001.parquet", "codes-00002.parquet"]
    assert isinstance(info, CodesInfo)


def test_a_second_call_writes_nothing(few: Path, codec: Path, tmp_path: Path) -> None:
    encode_corpus(options(tmp_path / "codes", few, codec))
    written = files(tmp_path / "codes")
    assert sorted(written) == [*(f"codes-0000{i}.parquet" for i in range(3)), "codes.json"]
    encode_corpus(options(tmp_path / "codes", few, codec))
    assert files(tmp_path / "codes") == written


def test_a_missing_shard_is_noticed_and_made_again(few: Path, codec: Path, tmp_path: Path) -> None:
    folder = tmp_path / "codes"
    encode_corpus(options(folder, few, codec))
    rows, written = read_codes(folder)[:], files(folder)
    (folder / "codes-00001.parquet").unlink()
    with pytest.raises(ValueError, match=r"lacks codes-00001\.parquet: run `python -m training\.codes`"):
        read_codes(folder)
    encode_corpus(options(folder, few, codec))
    assert read_codes(folder)[:] == rows
    for name in ("codes-00000.parquet", "codes-00002.parquet", "codes.json"):
        assert files(folder)[name] == written[name]


def test_a_shard_that_fails_is_not_there(few: Path, codec: Path, tmp_path: Path) -> None:
    clips = read_manifest(few)
    copy = shutil.copy(clips[5].audio, tmp_path / "copy.flac")
    write_manifest(few, [*clips[:5], replace(clips[5], audio=Path(copy)), *clips[6:]])
    Path(copy).unlink()
    with pytest.raises(ValueError, match=r"copy\.flac: no such file"):
        encode_corpus(options(tmp_path / "codes", few, codec))
    assert sorted(files(tmp_path / "codes")) == ["codes-00000.parquet", "codes.json"]
    shutil.copy(clips[5].audio, copy)
    encode_corpus(options(tmp_path / "codes", few, codec))
    assert read_codes(tmp_path / "codes").num_rows == 10


def test_another_tokenizer_is_refused(few: Path, codec: Path, tmp_path: Path) -> None:
    encode_corpus(options(tmp_path / "codes", few, codec))
    torch.manual_seed(1)
    AudioTokenizer(tiny()).save_pretrained(tmp_path / "other")
    written = files(tmp_path / "codes")
    with pytest.raises(ValueError, match="codes of another tokenizer or corpus: choose an empty folder"):
        encode_corpus(options(tmp_path / "codes", few, tmp_path / "other"))
    assert files(tmp_path / "codes") == written


def test_another_corpus_of_as_many_clips_is_refused(few: Path, codec: Path, tmp_path: Path) -> None:
    encode_corpus(options(tmp_path / "codes", few, codec))
    clips = read_manifest(few)
    write_manifest(few, [*clips[:9], replace(clips[9], text="Something else.")])
    with pytest.raises(ValueError, match="another tokenizer or corpus"):
        encode_corpus(options(tmp_path / "codes", few, codec))


def test_a_corpus_that_moved_is_the_same(few: Path, codec: Path, tmp_path: Path) -> None:
    encode_corpus(options(tmp_path / "codes", few, codec))
    clips = read_manifest(few)
    (tmp_path / "moved").mkdir()
    moved = [replace(clip, audio=Path(shutil.copy(clip.audio, tmp_path / "moved"))) for clip in clips]
    write_manifest(few, moved)
    assert encode_corpus(options(tmp_path / "codes", few, codec)).clips == 10


def test_clips_without_text_and_long_ones_are_left_out(few: Path, codec: Path, tmp_path: Path) -> None:
    clips = sorted(read_manifest(few), key=lambda clip: clip.duration)
    write_manifest(few, [replace(clips[0], text=None), *clips[1:]])
    limit = clips[6].duration
    info = encode_corpus(options(tmp_path / "codes", few, codec, max_seconds=limit))
    assert info.clips == 6
    assert read_codes(tmp_path / "codes")["text"][:] == [clip.text for clip in clips[1:7]]


def test_a_corpus_without_text_is_refused(few: Path, codec: Path, tmp_path: Path) -> None:
    write_manifest(few, [replace(clip, text=None) for clip in read_manifest(few)])
    with pytest.raises(ValueError, match=r"few\.jsonl: no clip has a text"):
        encode_corpus(options(tmp_path / "codes", few, codec))


def test_a_folder_without_codes_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no codes\.json: make codes with `python -m"):
        read_codes(tmp_path)
