"""Encode a corpus once: `python -m training.prepare OUT --manifest FILE --tokenizer FOLDER`.

Every clip that has a text becomes an entry of a Parquet shard (`training.data.code_shards`): codes at full
depth, text, speaker. A shard is written whole or not at all, and a second call continues where the first one
stopped. Started by `accelerate launch`, process r of n writes shards r, r + n, ...; processes never wait for
each other, and a tar archive is read by one of them, from front to back.
"""

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import tyro
from pyarrow import parquet
from pydantic import TypeAdapter
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from tokenizer import AudioTokenizer
from tokenizer.codes.coded_audio import fingerprint
from tokenizer.io.atomic_files import new_file
from tokenizer.io.audio import AudioError, read_samples, resample
from training.common.distributed import start
from training.data.archives import ClipReader
from training.data.code_shards import INFO, CodesInfo, Skipped, read_info, shard_name, write_shard
from training.data.manifest import Clip
from training.data.shard_plan import clips_of, plan

logger = logging.getLogger(__name__)

SKIPPED = "skipped.jsonl"
BATCHES_PER_POOL = 8
"""Audio of so many batches is decoded at a time, so that each batch can have clips of similar length."""
VOXBOX_HOURS = 102_500
"""Size of VoxBox, for which the log gives an estimate of disk space."""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Which clips to encode, with which tokenizer, into which folder."""

    out: Annotated[Path, tyro.conf.Positional]
    manifest: Path
    tokenizer: str
    """Folder or hub id of an AudioTokenizer."""
    depth: int | None = None
    """Number of codebooks to keep, the first ones; None keeps all. A model cannot generate more than
    these."""
    max_seconds: float = 30.0
    """Longer clips are left out, and counted."""
    clips_per_shard: int = 1000
    batch_seconds: float = 120.0
    """Most audio that is encoded at once, padding included."""
    readers: int = 4
    """Threads of a process that decode sound files."""


def prepare(options: PrepareOptions) -> CodesInfo:
    """Write those of this process's shards that are missing.

    Clips that cannot be read are skipped and listed in `skipped.jsonl`, which the process that finishes last
    writes; it also logs how many bits the codes take.

    Returns:
        The description of the folder.

    Raises:
        ValueError: OUT holds codes of another tokenizer or corpus, the tokenizer does not have `depth`
            codebooks, or a shard's files are not there.
    """
    processes = start(unused=False)
    tokenizer = AudioTokenizer.from_pretrained(options.tokenizer).to(processes.device).eval()
    config = tokenizer.config
    if config.codebook_size > 2**15:
        raise ValueError(f"codebook_size={config.codebook_size}: code shards hold codes below 32768")
    depth = config.num_codebooks if options.depth is None else options.depth
    if not 1 <= depth <= config.num_codebooks:
        raise ValueError(
            f"depth={depth}: this tokenizer has {config.num_codebooks} codebooks, keep 1 or more"
        )
    shards, digest = plan(options.manifest, options.max_seconds, options.clips_per_shard)
    info = CodesInfo(
        num_codebooks=depth,
        codebook_size=config.codebook_size,
        frame_rate=config.frame_rate,
        tokenizer_sha256=fingerprint(tokenizer).hex(),
        clips_sha256=digest,
        clips=sum(shard.clips for shard in shards),
        clips_per_shard=options.clips_per_shard,
        num_shards=len(shards),
    )
    options.out.mkdir(parents=True, exist_ok=True)
    if not (options.out / INFO).exists():
        _write(options.out / INFO, TypeAdapter(CodesInfo).dump_json(info, indent=2) + b"\n")
    elif read_info(options.out) != info:
        raise ValueError(
            f"{options.out} holds codes of another tokenizer or corpus, or shards of another size: "
            "choose an empty folder"
        )
    mine = [shard for shard in shards if shard.owner % processes.num_processes == processes.process_index]
    mine = [shard for shard in mine if not (options.out / shard_name(shard.number)).exists()]
    clips, total = ClipReader(), sum(shard.clips for shard in mine)
    progress = tqdm(total=total, desc="clips", unit="", disable=not processes.is_local_main_process)
    with ThreadPoolExecutor(options.readers) as pool, progress:
        for shard in mine:
            wanted = clips_of(options.manifest, shard, options.max_seconds)
            if not any((clip.audio if clip.member else clip.audio.parent).exists() for clip in wanted):
                raise ValueError(
                    f"{wanted[0].audio}: not there, nor its folder, nor any other of shard {shard.number}; "
                    "see to the disk, or clean the manifest with `python -m training.corpora validate`"
                )
            rows, skipped = _encode(tokenizer, wanted, clips, pool, options)
            write_shard(options.out / shard_name(shard.number), rows, info, skipped)
            progress.update(shard.clips)
    if all((options.out / name).exists() for name in info.shards):
        logger.info("%s", summarize(options.out))
    return info


def _encode(
    tokenizer: AudioTokenizer,
    clips: Sequence[Clip],
    reader: ClipReader,
    pool: ThreadPoolExecutor,
    options: PrepareOptions,
) -> tuple[list[dict[str, Any]], list[Skipped]]:
    """Encode clips: return entries in the clips' order, and the clips that could not be read."""
    rows: dict[int, dict[str, Any]] = {}
    wrong: dict[int, str] = {}
    for decoded in _decode(clips, reader, pool, tokenizer.config.sample_rate, options, wrong):
        for group in _groups(decoded, options.batch_seconds * tokenizer.config.sample_rate):
            audio = pad_sequence([decoded[i] for i in group], batch_first=True)
            codes = tokenizer.encode(audio.to(next(tokenizer.parameters()).device), options.depth).cpu()
            for i, encoded in zip(group, codes, strict=True):
                frames = -(-len(decoded[i]) // tokenizer.config.frame_size)
                rows[i] = {
                    "text": clips[i].text,
                    "speaker": clips[i].speaker,
                    "language": clips[i].language,
                    "source": clips[i].source,
                    "frames": frames,
                    "codes": encoded[:frames].numpy(),
                }
    skipped = [Skipped(clips[i].name, clips[i].source, wrong[i]) for i in sorted(wrong)]
    return [rows[i] for i in sorted(rows)], skipped


def _decode(
    clips: Sequence[Clip],
    reader: ClipReader,
    pool: ThreadPoolExecutor,
    sample_rate: int,
    options: PrepareOptions,
    wrong: dict[int, str],
) -> Iterator[dict[int, Tensor]]:
    """Yield audio of some batches at a time, by index of clip; the errors of other clips go into `wrong`."""

    def decode(i: int, data: bytes | AudioError) -> Tensor | AudioError:
        try:
            if isinstance(data, AudioError):
                return data
            samples, rate = read_samples(BytesIO(data), clips[i].name)
            if len(samples) > options.max_seconds * rate:
                seconds = len(samples) / rate
                return AudioError(
                    f"{clips[i].name}: lasts {seconds:.1f} s, more than {options.max_seconds:g} s"
                )
            return resample(samples, rate, sample_rate, clips[i].name)
        except AudioError as error:
            return error

    reads, waiting, seconds = reader.read(clips), {}, 0.0
    while True:
        for i, data in reads:
            waiting[i] = pool.submit(decode, i, data)
            seconds += clips[i].duration
            if seconds >= BATCHES_PER_POOL * options.batch_seconds:
                break
        if not waiting:
            return
        results = {i: future.result() for i, future in waiting.items()}
        wrong.update({i: str(result) for i, result in results.items() if isinstance(result, AudioError)})
        if good := {i: result for i, result in results.items() if isinstance(result, Tensor)}:
            yield good
        waiting, seconds = {}, 0.0


def _groups(audio: dict[int, Tensor], max_samples: float) -> Iterator[list[int]]:
    """Yield indices of clips, shortest first, of at most `max_samples` with padding, or a single clip."""
    group: list[int] = []
    for i in sorted(audio, key=lambda i: len(audio[i])):
        if group and (len(group) + 1) * len(audio[i]) > max_samples:
            yield group
            group = []
        group.append(i)
    yield group


def summarize(folder: Path) -> str:
    """Write `skipped.jsonl` if clips were skipped; return a line about clips, hours and bits a code.

    Args:
        folder: a folder in which no shard is missing.
    """
    info, skipped = read_info(folder), []
    rows, frames, packed, whole = 0, 0, 0, 0
    for name in info.shards:
        with parquet.ParquetFile(folder / name) as file:
            footer = file.metadata
            frames += sum(file.read(["frames"]).column("frames").to_pylist())
        rows += footer.num_rows
        codes = footer.schema.names.index("codes")
        packed += sum(
            footer.row_group(i).column(codes).total_compressed_size for i in range(footer.num_row_groups)
        )
        whole += (folder / name).stat().st_size
        skipped += [Skipped(*fields) for fields in json.loads(footer.metadata[b"skipped"])]
    if skipped:
        lines = [json.dumps(clip._asdict(), ensure_ascii=False) + "\n" for clip in skipped]
        _write(folder / SKIPPED, "".join(lines).encode())
        logger.warning("%d clips skipped, see %s", len(skipped), folder / SKIPPED)
    seconds = frames / info.frame_rate
    bits = 8 * whole / (frames * info.num_codebooks)
    voxbox = 8 * whole * VOXBOX_HOURS * 3600 / seconds / 8e9
    return (
        f"{rows} clips, {seconds / 3600:.2f} h, {whole / 1e6:.1f} MB: "
        f"{8 * packed / (frames * info.num_codebooks):.2f} bits a code, {bits:.2f} with the texts "
        f"(a code needs {(info.codebook_size - 1).bit_length()}); "
        f"{VOXBOX_HOURS} h would take {voxbox:.0f} GB"
    )


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, however many processes write the same."""
    if not path.exists() or path.read_bytes() != data:
        with new_file(path, ValueError) as file:
            file.write(data)


def main(argv: list[str] | None = None) -> None:
    """Run the command line; a user error ends with one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    try:
        prepare(tyro.cli(PrepareOptions, args=argv, description=__doc__))
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
