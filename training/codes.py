"""Encode a corpus once: `python -m training.codes OUT --manifest FILE --tokenizer FOLDER`.

Every clip that has a text becomes one row of a Parquet shard: codes at full depth, text, speaker. A shard
is written whole or not at all, and a second call goes on where the first one ended.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import tyro
from datasets import Dataset, Features, Sequence, Value
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from tokenizer import AudioTokenizer, load_audio
from tokenizer.checkpoint import WEIGHTS, read_config, write_config
from training.manifest import Clip, read_manifest

logger = logging.getLogger(__name__)

INFO = "codes.json"
FEATURES = Features(
    {
        "text": Value("string"),
        "speaker": Value("string"),
        "language": Value("string"),
        "frames": Value("int32"),
        "codes": Sequence(Sequence(Value("int16"))),
    }
)


@dataclass(frozen=True, kw_only=True)
class CodesInfo:
    """What a folder of shards was made from; codes mean nothing without it."""

    num_codebooks: int
    codebook_size: int
    tokenizer_sha256: str
    """Of the tokenizer's `model.safetensors`."""
    clips_sha256: str
    """Of the clips' names, durations, texts and speakers, in order."""
    clips: int
    clips_per_shard: int

    @property
    def shards(self) -> list[str]:
        """File names."""
        return [f"codes-{i:05d}.parquet" for i in range(-(-self.clips // self.clips_per_shard))]


@dataclass(frozen=True, kw_only=True)
class CodesOptions:
    """Which clips, by which tokenizer, into which folder."""

    out: Annotated[Path, tyro.conf.Positional]
    manifest: Path
    tokenizer: Path
    """Folder of an AudioTokenizer."""
    max_seconds: float = 30.0
    """Longer clips are left out, and counted."""
    clips_per_shard: int = 1000
    batch_seconds: float = 120.0
    """Most audio encoded at once, padding included."""
    device: str = "cpu"


def encode_corpus(options: CodesOptions) -> CodesInfo:
    """Write the shards that are still missing; raise ValueError when OUT holds codes of something else."""
    clips = [clip for clip in read_manifest(options.manifest) if clip.text and clip.task == "asr"]
    kept = [clip for clip in clips if clip.duration <= options.max_seconds]
    logger.info("%d clips with text, %d of them too long", len(clips), len(clips) - len(kept))
    if not kept:
        raise ValueError(f"{options.manifest}: no clip has a text and at most {options.max_seconds} s")
    tokenizer = AudioTokenizer.from_pretrained(options.tokenizer).to(options.device)
    info = CodesInfo(
        num_codebooks=tokenizer.config.num_codebooks,
        codebook_size=tokenizer.config.codebook_size,
        tokenizer_sha256=hashlib.sha256((options.tokenizer / WEIGHTS).read_bytes()).hexdigest(),
        clips_sha256=_digest(kept),
        clips=len(kept),
        clips_per_shard=options.clips_per_shard,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    if not (options.out / INFO).exists():
        write_config(options.out / INFO, info)
    elif read_info(options.out) != info:
        raise ValueError(f"{options.out} holds codes of another tokenizer or corpus: choose an empty folder")
    for i, name in enumerate(tqdm(info.shards, desc="shards")):
        path = options.out / name
        if not path.exists():
            first = i * options.clips_per_shard
            rows = _encode(tokenizer, kept[first : first + options.clips_per_shard], options)
            temporary = path.with_suffix(".tmp")
            Dataset.from_list(rows, features=FEATURES).to_parquet(temporary)
            os.replace(temporary, path)
    return info


def read_info(folder: Path) -> CodesInfo:
    """The description of a folder of shards."""
    path = folder / INFO
    if not path.exists():
        raise ValueError(f"{folder} holds no {INFO}: make codes with `python -m training.codes`")
    return read_config(CodesInfo, path)


def read_codes(folder: Path) -> Dataset:
    """All rows of a folder of shards, memory-mapped."""
    paths = [folder / name for name in read_info(folder).shards]
    if missing := [path.name for path in paths if not path.exists()]:
        raise ValueError(
            f"{folder} lacks {', '.join(missing)}: run `python -m training.codes` again to complete it"
        )
    return cast(Dataset, Dataset.from_parquet([str(path) for path in paths]))


def _digest(clips: list[Clip]) -> str:
    """Changes with any clip, but not when the whole corpus moves to another folder."""
    described = [(clip.audio.name, clip.duration, clip.text, clip.speaker) for clip in clips]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _encode(tokenizer: AudioTokenizer, clips: list[Clip], options: CodesOptions) -> list[dict[str, object]]:
    """Rows in the clips' order; clips of like length are encoded together, padded on the right."""
    config, rows = tokenizer.config, {}
    for group in _groups(clips, options.batch_seconds):
        audio = [load_audio(clips[i].audio, config.sample_rate) for i in group]
        codes = tokenizer.encode(pad_sequence(audio, batch_first=True).to(options.device)).cpu()
        for i, samples, encoded in zip(group, audio, codes, strict=True):
            frames = -(-len(samples) // config.frame_size)
            rows[i] = {
                "text": clips[i].text,
                "speaker": clips[i].speaker,
                "language": clips[i].language,
                "frames": frames,
                "codes": encoded[:frames].tolist(),
            }
    return [rows[i] for i in range(len(clips))]


def _groups(clips: list[Clip], batch_seconds: float) -> Iterator[list[int]]:
    """Indices of clips, shortest first, so many at once as `batch_seconds` hold, but at least one."""
    group: list[int] = []
    for i in sorted(range(len(clips)), key=lambda i: clips[i].duration):
        if group and (len(group) + 1) * clips[i].duration > batch_seconds:
            yield group
            group = []
        group.append(i)
    yield group


def main(argv: list[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    encode_corpus(tyro.cli(CodesOptions, args=argv, description=__doc__))


if __name__ == "__main__":
    main()
