"""Remap a CAT-TTS model to the codes of another tokenizer, so that it need not learn to read again.

    python -m training.tts.remap_codes OUT --tts MODEL --before OLD-TOKENIZER --after TOKENIZER --data
    MANIFEST

Both tokenizers encode the same speech. The embeddings of the new codes are fitted so that a frame's codes add
up to what its old ones did; a row of an output head becomes the mean of those of the old codes that it occurs
with. The rest of the model stays; a training that begins with OUT corrects what is still wrong.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from jaxtyping import Float, Int
from torch import Tensor

from cat_tts import CatTTS
from tokenizer import AudioTokenizer
from tokenizer.io.audio import load_audio
from training.data.manifest import Clip, read_manifest

logger = logging.getLogger(__name__)

PRIOR_FRAMES = 4.0
"""Frames of a prior that pulls the rows of rare codes to the mean."""


@dataclass(frozen=True, kw_only=True)
class RemapOptions:
    """Options of the command."""

    out: Annotated[Path, tyro.conf.Positional]
    """Folder of the remapped model; begin a training with it: --init OUT."""
    tts: Path
    """Folder of the model."""
    before: Path
    """Tokenizer whose codes the model speaks."""
    after: Path
    """Tokenizer whose codes it is to speak; as many codebooks or more, of as many codes."""
    data: Path
    """Manifest of speech, see training.data.manifest."""
    seconds: float = 14_400.0
    """Seconds of speech, drawn at random; four hours are 180,000 frames."""
    seed: int = 0


def remap_codes(options: RemapOptions) -> CatTTS:
    """Write the remapped model to `options.out`, and return it.

    Raises:
        ValueError: the tokenizers have other frames or codebooks than each other, or than the model.
    """
    model, text_tokenizer = CatTTS.from_pretrained(options.tts)
    before, after = (
        AudioTokenizer.from_pretrained(path, "encoder") for path in (options.before, options.after)
    )
    shape = (model.config.num_codebooks, model.config.codebook_size)
    for path, tokenizer in ((options.before, before), (options.after, after)):
        found = (tokenizer.config.num_codebooks, tokenizer.config.codebook_size)
        if found[0] < shape[0] or found[1] != shape[1]:
            raise ValueError(
                f"{path} has {found[0]} codebooks of {found[1]} codes, "
                f"the model speaks {shape[0]} of {shape[1]}"
            )
    if before.config.frame_rate != after.config.frame_rate:
        raise ValueError(
            f"{before.config.frame_rate:g} frames a second before, {after.config.frame_rate:g} after: "
            "only tokenizers of the same frame rate can be remapped"
        )
    pairs = []
    for audio in _speech(read_manifest(options.data), options, before.config.sample_rate):
        codes = [tokenizer.encode(audio[None], shape[0])[0] for tokenizer in (before, after)]
        frames = min(map(len, codes))
        pairs.append([part[:frames] for part in codes])
    old, new = (torch.cat(part) for part in zip(*pairs, strict=True))
    logger.info("%d frames of %d clips", len(old), len(pairs))
    fit(model.float(), old, new)
    model.save_pretrained(options.out, text_tokenizer)
    return model


@torch.no_grad()
def fit(model: CatTTS, old: Int[Tensor, "n k"], new: Int[Tensor, "n k"]) -> None:
    """Fit embeddings and output heads, in place, from `old` codes to `new` ones of the same frames.

    Codebook by codebook a new row is the mean of the residual of its frames, nearer to 0 where few have it.
    The row of the pad code stays.

    Args:
        model: The model, in float32.
        old: Codes that the model speaks.
        new: Codes of the same frames by the other tokenizer.
    """
    size = model.config.codebook_size
    tables = [table.weight for table in model.code_embeddings]
    residual = sum((table[codes] for table, codes in zip(tables, old.T, strict=True)), torch.zeros(()))
    residual = residual - (centre := residual.mean(0))
    for k, (table, codes) in enumerate(zip(tables, new.T, strict=True)):
        rows = _means(residual, codes, size)
        residual = residual - rows[codes]
        table[:size] = rows + (centre if k == 0 else 0)
    for head, before, after in zip(model.depth.code_heads, old.T, new.T, strict=True):
        outputs = head.weight[before]
        centre = outputs.mean(0)
        head.weight[:size] = centre + _means(outputs - centre, after, size)


def _means(values: Float[Tensor, "n d"], codes: Int[Tensor, " n"], size: int) -> Float[Tensor, "v d"]:
    sums = torch.zeros(size, values.shape[1]).index_add_(0, codes, values)
    return sums / (torch.bincount(codes, minlength=size) + PRIOR_FRAMES)[:, None]


def _speech(clips: list[Clip], options: RemapOptions, rate: int) -> Iterator[Tensor]:
    left = options.seconds
    for number in np.random.default_rng(options.seed).permutation(len(clips)):
        if left <= 0:
            return
        audio = load_audio(clips[number].audio, rate)
        left -= len(audio) / rate
        yield audio


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    remap_codes(tyro.cli(RemapOptions, args=argv, description=__doc__))


if __name__ == "__main__":
    main()
