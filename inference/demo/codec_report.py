"""What the tokenizer alone makes of a recording, depth by depth."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from inference.demo.spectrogram import mel_levels
from inference.voices.untrusted_audio import load_upload
from tokenizer import AudioTokenizer

MOST_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Coded:
    """A recording and its codes."""

    audio: Float[np.ndarray, " s"]
    sample_rate: int
    codes: Int[Tensor, "t k"]


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What one depth costs and what it gives."""

    depth: int
    bit_per_second: float
    num_bytes: int
    """Of the codes; as 16-bit samples the same recording takes `times_smaller` as many."""
    times_smaller: float
    distance_db: float
    """Mean difference of the log-mel spectrograms: smaller is closer to the recording."""


def encode_file(tokenizer: AudioTokenizer, path: str | Path) -> Coded:
    """The first half minute of a file, as codes; AudioError for what is no audio."""
    sample_rate = tokenizer.config.sample_rate
    audio = torch.from_numpy(load_upload(path, sample_rate, MOST_SECONDS))
    device = next(tokenizer.parameters()).device
    codes = tokenizer.encode(audio[None].to(device))[0].cpu()
    return Coded(audio=audio.numpy(), sample_rate=sample_rate, codes=codes)


def decode_at(tokenizer: AudioTokenizer, coded: Coded, depth: int) -> Float[np.ndarray, " s"]:
    """The recording as `depth` codebooks tell it."""
    device = next(tokenizer.parameters()).device
    audio = tokenizer.decode(coded.codes[None, :, :depth].to(device))[0]
    return audio[: len(coded.audio)].float().clamp(-1, 1).cpu().numpy()


def rates(tokenizer: AudioTokenizer, coded: Coded) -> list[Rate]:
    """A row for depths 1, 2, 4 ... and all."""
    deepest, bits = tokenizer.config.num_codebooks, (tokenizer.config.codebook_size - 1).bit_length()
    original = mel_levels(coded.audio, coded.sample_rate)
    rows = []
    for depth in sorted({*(2**n for n in range(deepest.bit_length())), deepest}):
        decoded = mel_levels(decode_at(tokenizer, coded, depth), coded.sample_rate)
        num_bytes = -(-len(coded.codes) * depth * bits // 8)
        rows.append(
            Rate(
                depth=depth,
                bit_per_second=tokenizer.config.bitrate(depth),
                num_bytes=num_bytes,
                times_smaller=2 * len(coded.audio) / num_bytes,
                distance_db=float(np.abs(decoded - original).mean()),
            )
        )
    return rows
