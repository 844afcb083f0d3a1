from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
from datasets import Dataset

from tokenizer import AudioTokenizer
from training.data.code_shards import (
    Codes,
    CodesInfo,
    Skipped,
    code_bits,
    pack,
    read_codes,
    read_info,
    require_tokenizer,
    stream_codes,
    unpack,
    write_shard,
)

pytestmark = pytest.mark.usefixtures("datasets_cache")


def described(num_codebooks: int, codebook_size: int) -> CodesInfo:
    return CodesInfo(
        num_codebooks=num_codebooks,
        codebook_size=codebook_size,
        frame_rate=12.5,
        tokenizer_sha256="00",
        clips_sha256="00",
        clips=1,
        clips_per_shard=1,
        num_shards=1,
    )


def test_ten_bits_a_code_the_first_layer_first() -> None:
    codes = np.array([[1, 1023], [2, 512]])
    assert pack(codes, 1024) == int(
        "0000000001 0000000010 1111111111 1000000000".replace(" ", ""), 2
    ).to_bytes(5)


@pytest.mark.parametrize(("codebooks", "size"), [(32, 1024), (6, 32), (1, 2), (3, 2), (12, 1000), (2, 2**15)])
@pytest.mark.parametrize("frames", [0, 1, 7, 250])
def test_what_is_packed_comes_back_at_every_depth(codebooks: int, size: int, frames: int) -> None:
    codes = np.random.default_rng(0).integers(0, size, (frames, codebooks))
    info, data = described(codebooks, size), pack(codes, size)
    assert len(data) == -(-frames * codebooks * code_bits(codebooks, size) // 8)
    for depth in {1, codebooks}:
        found = unpack(data, info, depth)
        assert found.dtype == np.int16
        np.testing.assert_array_equal(found, codes[:, :depth])
    np.testing.assert_array_equal(unpack(data, info), codes)


def test_a_lower_depth_needs_only_the_first_bytes() -> None:
    codes = np.random.default_rng(0).integers(0, 1024, (16, 32))
    info, data = described(32, 1024), pack(codes, 1024)
    damaged = data[: 16 * 4 * 10 // 8] + b"\xff" * (len(data) - 16 * 4 * 10 // 8)
    np.testing.assert_array_equal(unpack(damaged, info, 4), codes[:, :4])


def test_rows_are_unpacked_and_columns_are_read_alone(codes: Path) -> None:
    rows, info = read_codes(codes), read_info(codes)
    frames = rows["frames"][:]
    assert len(frames) == len(rows) == 48
    row = rows.select([5, 3])[1]
    assert row["codes"].shape == (frames[3], info.num_codebooks)
    np.testing.assert_array_equal(row["codes"], unpack(rows.stored[3]["codes"], info))
    assert row["text"] == rows["text"][3]
    assert [len(one["codes"]) for one in rows] == frames
    unreadable = rows.stored.remove_columns("codes").add_column("codes", list(range(48)))
    assert Codes(unreadable, info)["text"][:] == rows["text"][:]


def test_a_shard_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    info = described(3, 64)
    row = {"text": "a", "speaker": "", "language": "en", "source": "s", "frames": 2, "codes": [[1, 2, 3]] * 2}
    path = tmp_path / info.shards[0]
    write_shard(path, [row], info, [Skipped("x.wav", "s", "broken")])
    before = path.read_bytes()
    with pytest.raises(KeyError, match="codes"):
        write_shard(path, [{"text": "b"}], info)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == [path.name]
    read = Codes(Dataset.from_parquet(str(path)), info)[0]
    assert read["codes"].tolist() == row["codes"]


def test_streamed_rows_are_those_that_are_read_and_processes_share_them(codes: Path) -> None:
    def same(one: dict, other: dict) -> bool:
        return one["text"] == other["text"] and np.array_equal(one["codes"], other["codes"])

    rows = read_codes(codes)
    streamed = list(stream_codes(codes))
    assert len(streamed) == len(rows)
    assert all(map(same, streamed, rows))
    parts = [list(stream_codes(codes, rank=rank, world=2)) for rank in range(2)]
    assert [row["text"] for row in parts[0]] == [row["text"] for row in streamed[:20] + streamed[40:]]
    assert [row["text"] for row in parts[1]] == [row["text"] for row in streamed[20:40]]
    with pytest.raises(ValueError, match="has 3 shards, none for process 3 of 4"):
        stream_codes(codes, rank=3, world=4)


def test_shards_elsewhere_are_streamed(codes: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(codes), "/elsewhere", recursive=True)
    assert read_info("memory://elsewhere") == read_info(codes)
    texts = [row["text"] for row in stream_codes("memory://elsewhere")]
    assert texts == read_codes(codes)["text"][:]
    memory.rm("/elsewhere", recursive=True)
    with pytest.raises(ValueError, match=r"memory://elsewhere holds no codes\.json"):
        stream_codes("memory://elsewhere")


def test_codes_of_another_tokenizer_are_refused(codes: Path, codec: Path) -> None:
    info, tokenizer = read_info(codes), AudioTokenizer.from_pretrained(codec)
    require_tokenizer(info, tokenizer)
    with pytest.raises(ValueError, match="the codes have 7 codebooks of 32, the tokenizer 6 of 32"):
        require_tokenizer(replace(info, num_codebooks=7), tokenizer)
    with pytest.raises(ValueError, match=f"of tokenizer 12ab, this is {info.tokenizer_sha256}: give the one"):
        require_tokenizer(replace(info, tokenizer_sha256="12ab"), tokenizer)


def test_a_folder_without_codes_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"holds no codes\.json: make codes with `python -m training\.prepare`"
    ):
        read_codes(tmp_path)


def test_shards_of_an_older_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "codes.json").write_text('{"num_codebooks": 6, "codebook_size": 32, "clips": 3}')
    with pytest.raises(ValueError, match=r"codes\.json: frame_rate: Field required; make the codes again"):
        read_info(tmp_path)
