"""Carry a CAT-TTS model over to the codes of another tokenizer, so that it need not learn to read anew.

    python -m training.tts.remap_codes OUT --tts MODEL --before OLD-TOKENIZER --after TOKENIZER --data
    MANIFEST

Both tokenizers encode the same speech. The tables of the new codes are fitted so that a frame's codes add up
to what its old ones did; a row of an output layer becomes the mean of those of the old codes it occurs with.
Between them the model is left as it is; what is still wrong, a training that begins with OUT mends.
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

RARE = 4.0
"""Frames that stand against what few frames say of a code."""


@dataclass(frozen=True, kw_only=True)
class TranslateOptions:
    """Which model, and between which codes."""

    out: Annotated[Path, tyro.conf.Positional]
    """Folder of the translated model; begin a training with it: --init OUT."""
    tts: Path
    before: Path
    """Tokenizer whose codes the model speaks."""
    after: Path
    """Tokenizer whose codes it is to speak; as many codebooks or more, of as many codes."""
    data: Path
    """Manifest of speech, see training.data.manifest."""
    seconds: float = 14_400.0
    """Of it, drawn at random; four hours are 180,000 frames."""
    seed: int = 0


def translate(options: TranslateOptions) -> CatTTS:
    """Write the translated model to `options.out`.

    Raises:
        ValueError: the tokenizers have other frames or codebooks than each other, or than the model.
    """
    model, text = CatTTS.from_pretrained(options.tts)
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
            "only tokenizers of the same frame rate can be translated"
        )
    pairs = []
    for audio in _speech(read_manifest(options.data), options, before.config.sample_rate):
        codes = [tokenizer.encode(audio[None], shape[0])[0] for tokenizer in (before, after)]
        frames = min(map(len, codes))
        pairs.append([part[:frames] for part in codes])
    old, new = (torch.cat(part) for part in zip(*pairs, strict=True))
    logger.info("%d frames of %d clips", len(old), len(pairs))
    fit(model.float(), old, new)
    model.save_pretrained(options.out, text)
    return model


@torch.no_grad()
def fit(model: CatTTS, old: Int[Tensor, "n k"], new: Int[Tensor, "n k"]) -> None:
    """Turn tables and heads, in place, from `old` codes to `new` ones of the same frames.

    Codebook by codebook a new row is the mean of what its frames still lack, nearer to 0 where few have it.
    The row that stands for no code stays.
    """
    size = model.config.codebook_size
    tables = [table.weight for table in model.code_embeddings]
    lacking = sum((table[codes] for table, codes in zip(tables, old.T, strict=True)), torch.zeros(()))
    lacking = lacking - (centre := lacking.mean(0))
    for k, (table, codes) in enumerate(zip(tables, new.T, strict=True)):
        rows = _means(lacking, codes, size)
        lacking = lacking - rows[codes]
        table[:size] = rows + (centre if k == 0 else 0)
    for head, before, after in zip(model.depth.code_heads, old.T, new.T, strict=True):
        asked = head.weight[before]
        centre = asked.mean(0)
        head.weight[:size] = centre + _means(asked - centre, after, size)


def _means(values: Float[Tensor, "n d"], codes: Int[Tensor, " n"], size: int) -> Float[Tensor, "v d"]:
    sums = torch.zeros(size, values.shape[1]).index_add_(0, codes, values)
    return sums / (torch.bincount(codes, minlength=size) + RARE)[:, None]


def _speech(clips: list[Clip], options: TranslateOptions, rate: int) -> Iterator[Tensor]:
    left = options.seconds
    for number in np.random.default_rng(options.seed).permutation(len(clips)):
        if left <= 0:
            return
        audio = load_audio(clips[number].audio, rate)
        left -= len(audio) / rate
        yield audio


def main(argv: list[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    translate(tyro.cli(TranslateOptions, args=argv, description=__doc__))


if __name__ == "__main__":
    main()
