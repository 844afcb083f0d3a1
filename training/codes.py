"""Encode a corpus once: `python -m training.codes OUT --manifest FILE --tokenizer FOLDER`.

Every clip that has a text becomes one row of a Parquet shard: codes at full depth, text, speaker. A shard
is written whole or not at all, and a second call goes on where the first one ended.
"""

import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, cast

import torch
import tyro
from datasets import Dataset, Features, Sequence, Value
from tqdm import tqdm

from tokenizer import AudioTokenizer, load_audio
from tokenizer.checkpoint import write_text
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
    clips_per_shard: int
    clips: int


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
    """Audio encoded at once, padding included."""
    device: str = "cpu"


def encode_corpus(options: CodesOptions) -> CodesInfo:
    """Write the shards that are still missing; raise ValueError when OUT holds codes of something else."""
    clips = [clip for clip in read_manifest(options.manifest) if clip.text]
    kept = [clip for clip in clips if clip.duration <= options.max_seconds]
    logger.info("%d clips with text, %d of them too long", len(clips), len(clips) - len(kept))
    weights = options.tokenizer / "model.safetensors"
    tokenizer = AudioTokenizer.from_pretrained(options.tokenizer).to(options.device)
    info = CodesInfo(
        num_codebooks=tokenizer.config.num_codebooks,
        codebook_size=tokenizer.config.codebook_size,
        tokenizer_sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        clips_per_shard=options.clips_per_shard,
        clips=len(kept),
    )
    options.out.mkdir(parents=True, exist_ok=True)
    if (options.out / INFO).exists() and read_info(options.out) != info:
        raise ValueError(f"{options.out} holds codes of another tokenizer or corpus: choose an empty folder")
    write_text(options.out / INFO, json.dumps(asdict(info), indent=2) + "\n")
    for shard, first in enumerate(tqdm(range(0, len(kept), options.clips_per_shard), desc="shards")):
        path = options.out / f"codes-{shard:05d}.parquet"
        if not path.exists():
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
    return CodesInfo(**json.loads(path.read_text()))


def read_codes(folder: Path) -> Dataset:
    """All rows of a folder of shards, memory-mapped."""
    shards = sorted(str(path) for path in folder.glob("codes-*.parquet"))
    dataset = Dataset.from_parquet(cast("list", shards))
    if not isinstance(dataset, Dataset) or len(dataset) != read_info(folder).clips:
        raise ValueError(f"{folder}: shards are missing; run `python -m training.codes` again to complete it")
    return dataset


def _encode(tokenizer: AudioTokenizer, clips: list[Clip], options: CodesOptions) -> list[dict[str, object]]:
    """Rows in the clips' order; clips of like length are encoded together, padded on the right."""
    config, rows = tokenizer.config, {}
    batch: list[tuple[int, torch.Tensor]] = []
    by_length = sorted(range(len(clips)), key=lambda i: clips[i].duration)
    for position, index in enumerate(by_length):
        batch.append((index, load_audio(clips[index].audio, config.sample_rate)))
        padded = len(batch) * len(batch[-1][1]) / config.sample_rate
        if padded < options.batch_seconds and position + 1 < len(clips):
            continue
        audio = torch.nn.utils.rnn.pad_sequence([samples for _, samples in batch], batch_first=True)
        codes = tokenizer.encode(audio.to(options.device)).cpu()
        for (i, samples), encoded in zip(batch, codes, strict=True):
            frames = -(-len(samples) // config.frame_size)
            clip = clips[i]
            rows[i] = {
                "text": clip.text,
                "speaker": clip.speaker,
                "language": clip.language,
                "frames": frames,
                "codes": encoded[:frames].tolist(),
            }
        batch = []
    return [rows[i] for i in range(len(clips))]


def main(argv: list[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    encode_corpus(tyro.cli(CodesOptions, args=argv, description=__doc__))


if __name__ == "__main__":
    main()
