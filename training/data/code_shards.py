"""Store speech as shards of codes: `training.prepare` writes them, training reads them.

A folder holds `codes.json`, which says what the codes are, and `codes-00000.parquet` and so on. An entry is
an utterance: text, speaker, language, source, frames, and its codes at full depth, packed: codebook after
codebook, so that the first bytes are the utterance at a lower depth, each code in as many bits as the
codebook needs.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast, overload

import numpy as np
import pyarrow
from datasets import Dataset, Features, IterableDataset, Value, load_dataset
from fsspec.core import url_to_fs
from jaxtyping import Int, Int16
from pyarrow import parquet
from pydantic import TypeAdapter, ValidationError

from tokenizer import AudioTokenizer
from tokenizer.codes.coded_audio import fingerprint

INFO = "codes.json"
FEATURES = Features(
    {
        "text": Value("string"),
        "speaker": Value("string"),
        "language": Value("string"),
        "source": Value("string"),
        "frames": Value("int32"),
        "codes": Value("binary"),
    }
)
"""Columns of a shard as stored."""


@dataclass(frozen=True, kw_only=True)
class CodesInfo:
    """Describes a folder of shards: the tokenizer and the clips that it was encoded from."""

    num_codebooks: int
    codebook_size: int
    frame_rate: float
    """Frames a second."""
    tokenizer_sha256: str
    """Fingerprint of the quantizer, which decides what codes mean: `tokenizer.codes.coded_audio.fingerprint`
    in hex."""
    clips_sha256: str
    """SHA-256 of the clips' names, durations, texts and speakers, in order."""
    clips: int
    """Clips of the manifest; those that could not be read have no entry."""
    clips_per_shard: int
    """Most clips of a shard; it also ends where an archive ends."""
    num_shards: int

    @property
    def shards(self) -> list[str]:
        """The shards' file names."""
        return [shard_name(i) for i in range(self.num_shards)]


class Skipped(NamedTuple):
    """A clip that could not be encoded, and why; a shard stores its own in its metadata."""

    clip: str
    source: str
    why: str


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"codes-{number:05d}.parquet"


def read_info(folder: Path | str) -> CodesInfo:
    """Read the description of a folder of shards.

    Args:
        folder: a local folder, or an address as `stream_codes` takes it.

    Raises:
        ValueError: there is no `codes.json`, or it is of another version.
    """
    try:
        files, path = url_to_fs(f"{_address(folder)}/{INFO}")
        return TypeAdapter(CodesInfo).validate_json(files.cat_file(path))
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no {INFO}: make codes with `python -m training.prepare`") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            f"{folder}/{INFO}: {where}: {first['msg']}; make the codes again with "
            "`python -m training.prepare`"
        ) from None


class Codes:
    """Utterances in memory-mapped shards.

    `codes[i]` is an utterance, whose `"codes"` are [t, k] int16; `codes["frames"][:]` is a column, which is
    read without the others.
    """

    def __init__(self, stored: Dataset, info: CodesInfo) -> None:
        self.stored, self.info = stored, info

    def __len__(self) -> int:
        return len(self.stored)

    @overload
    def __getitem__(self, key: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, key: str) -> Any: ...
    def __getitem__(self, key: int | str) -> Any:
        return self.stored[key] if isinstance(key, str) else _unpacked(self.stored[key], self.info)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (_unpacked(row, self.info) for row in cast(Iterable[dict[str, Any]], self.stored))

    def select(self, indices: Iterable[int]) -> "Codes":
        """Return some of the utterances; nothing is copied."""
        return Codes(self.stored.select(indices), self.info)


def read_codes(folder: Path) -> Codes:
    """Open all utterances of a folder of shards.

    `datasets` keeps a copy in its cache (HF_DATASETS_CACHE), which takes as much disk as the shards.

    Raises:
        ValueError: the folder is not one of shards, or lacks some.
    """
    info = read_info(folder)
    paths = [folder / name for name in info.shards]
    if missing := [path.name for path in paths if not path.exists()]:
        raise ValueError(
            f"{folder} lacks {', '.join(missing[:5])}{' and more' if len(missing) > 5 else ''}: "
            "run `python -m training.prepare` again to complete it"
        )
    return Codes(cast(Dataset, Dataset.from_parquet([str(path) for path in paths])), info)


def stream_codes(folder: Path | str, *, rank: int = 0, world: int = 1) -> IterableDataset:
    """Stream the utterances of this process's shards: rank, rank + world, and so on.

    Shuffling and resuming is left to `datasets`.

    Args:
        folder: a local folder; or a string owner/name, a data set of the Hugging Face hub; or any address
        that
            fsspec reads, such as s3://bucket/codes.
        rank: number of this process.
        world: count of processes.

    Returns:
        Utterances one after the other, codes as [t, k] int16; none is kept in memory.

    Raises:
        ValueError: there are fewer shards than processes.
    """
    info = read_info(folder)
    files = [f"{_address(folder)}/{name}" for name in info.shards[rank::world]]
    if not files:
        raise ValueError(f"{folder} has {info.num_shards} shards, none for process {rank} of {world}")
    rows = cast(IterableDataset, load_dataset("parquet", data_files=files, split="train", streaming=True))
    return rows.map(partial(_unpacked, info=info))


def require_tokenizer(info: CodesInfo, tokenizer: AudioTokenizer) -> None:
    """Check that codes belong to a tokenizer; any other would decode them to noise.

    Raises:
        ValueError: they do not.
    """
    config, digest = tokenizer.config, fingerprint(tokenizer).hex()
    if info.num_codebooks > config.num_codebooks or info.codebook_size != config.codebook_size:
        raise ValueError(
            f"the codes have {info.num_codebooks} codebooks of {info.codebook_size}, the tokenizer "
            f"{config.num_codebooks} of {config.codebook_size}: give the tokenizer that made them"
        )
    if info.tokenizer_sha256 != digest:
        raise ValueError(
            f"the codes are of tokenizer {info.tokenizer_sha256}, this is {digest}: give the one that made "
            "them, or make them again with `python -m training.prepare`"
        )


def write_shard(
    path: Path, rows: Sequence[Mapping[str, Any]], info: CodesInfo, skipped: Sequence[Skipped] = ()
) -> None:
    """Write a shard beside its final name, then rename it: it is whole, or not there.

    Args:
        path: the final name.
        rows: utterances, with a value for each of `FEATURES`; codes are [t, k].
        info: what the codes are.
        skipped: clips that could not be encoded.
    """
    packed = [{**row, "codes": pack(np.asarray(row["codes"]), info.codebook_size)} for row in rows]
    table = pyarrow.Table.from_pylist(packed, FEATURES.arrow_schema)
    metadata = {**(table.schema.metadata or {}), b"skipped": json.dumps(skipped).encode()}
    # texts and codes are all different: a dictionary, or a page's least and greatest, would only cost
    shared = [name for name in FEATURES if name not in ("text", "codes")]
    options: dict[str, Any] = {"use_dictionary": shared, "write_statistics": shared}
    options["compression"] = {name: "none" if name == "codes" else "zstd" for name in FEATURES}
    temporary = path.with_suffix(".tmp")
    with parquet.ParquetWriter(temporary, table.schema.with_metadata(metadata), **options) as file:
        if rows:  # `datasets` takes a file without a part, but none with an empty part
            file.write_table(table.replace_schema_metadata(metadata))
    os.replace(temporary, path)


def code_bits(num_codebooks: int, codebook_size: int) -> int:
    """Return in how many bits a code is stored.

    A frame has 8 bits or more, so that the number of bytes decides the number of frames.
    """
    return max((codebook_size - 1).bit_length(), -(-8 // num_codebooks))


def pack(codes: Int[np.ndarray, "t k"], codebook_size: int) -> bytes:
    """Pack codes [t, k] into bytes: the first codebook first, each code with its highest bit first."""
    bits = code_bits(codes.shape[1], codebook_size)
    wide = np.unpackbits(codes.T.astype(">u2").reshape(-1, 1).view(np.uint8), axis=1)
    return np.packbits(wide[:, 16 - bits :]).tobytes()


def unpack(data: bytes, info: CodesInfo, depth: int | None = None) -> Int16[np.ndarray, "t k"]:
    """Unpack codes.

    Args:
        data: what `pack` returned.
        info: says how many codebooks are in it, and of what size.
        depth: number of codebooks to unpack, the first ones; by default all. The others are not touched.

    Returns:
        Codes [t, depth].
    """
    bits = code_bits(info.num_codebooks, info.codebook_size)
    frames = len(data) * 8 // (bits * info.num_codebooks)
    depth = info.num_codebooks if depth is None else depth
    begin = np.arange(frames * depth) * bits
    first, shift = begin >> 3, 24 - bits - (begin & 7)
    source = np.frombuffer(data + b"\0\0", np.uint8).astype(np.int32)
    window = source[first] << 16 | source[first + 1] << 8 | source[first + 2]
    codes = (window >> shift & ((1 << bits) - 1)).astype(np.int16)
    return np.ascontiguousarray(codes.reshape(depth, frames).T)


def _unpacked(row: dict[str, Any], info: CodesInfo) -> dict[str, Any]:
    return {**row, "codes": unpack(row["codes"], info)}


def _address(folder: Path | str) -> str:
    """Return the address that fsspec opens, of a folder, an address, or a data set of the hub."""
    if isinstance(folder, Path) or "://" in folder or Path(folder).is_dir() or folder.count("/") != 1:
        return str(folder)
    return f"hf://datasets/{folder}"
