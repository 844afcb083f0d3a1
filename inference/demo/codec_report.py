"""The bitrate and the quality of the audio tokenizer at each depth, for one recording."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from inference.demo.spectrogram import mel_levels
from inference.voices.untrusted_audio import load_upload
from tokenizer import AudioTokenizer

MAX_SECONDS = 30.0
"""A longer recording is cut to its beginning."""


@dataclass(frozen=True, kw_only=True)
class EncodedRecording:
    """A recording and its codes."""

    audio: Float[np.ndarray, " s"]
    sample_rate: int
    codes: Int[Tensor, "t k"]


@dataclass(frozen=True, kw_only=True)
class DepthCost:
    """The size and the quality of a recording at one depth."""

    depth: int
    bit_per_second: float
    num_bytes: int
    """Size of the codes; as 16-bit samples the recording takes `times_smaller` as many bytes."""
    times_smaller: float
    distance_db: float
    """Mean difference of the log-mel spectrograms: smaller is closer to the recording."""


def encode_file(tokenizer: AudioTokenizer, path: str | Path) -> EncodedRecording:
    """Encode the first half minute of a file.

    Args:
        tokenizer: The audio tokenizer.
        path: An audio file from a user.

    Returns:
        The recording at the tokenizer's rate, and its codes [t k].

    Raises:
        AudioError: The file is not readable as audio.
    """
    sample_rate = tokenizer.config.sample_rate
    audio = torch.from_numpy(load_upload(path, sample_rate, MAX_SECONDS))
    device = next(tokenizer.parameters()).device
    codes = tokenizer.encode(audio[None].to(device))[0].cpu()
    return EncodedRecording(audio=audio.numpy(), sample_rate=sample_rate, codes=codes)


def decode_at(tokenizer: AudioTokenizer, coded: EncodedRecording, depth: int) -> Float[np.ndarray, " s"]:
    """Decode the first codebooks of a recording.

    Args:
        tokenizer: The audio tokenizer.
        coded: The recording.
        depth: How many codebooks to decode.

    Returns:
        Samples [s], as many as the recording has.
    """
    device = next(tokenizer.parameters()).device
    audio = tokenizer.decode(coded.codes[None, :, :depth].to(device))[0]
    return audio[: len(coded.audio)].float().clamp(-1, 1).cpu().numpy()


def depth_costs(tokenizer: AudioTokenizer, coded: EncodedRecording) -> list[DepthCost]:
    """Measure depths 1, 2, 4 ... and all.

    Args:
        tokenizer: The audio tokenizer.
        coded: The recording.

    Returns:
        Size and quality by increasing depth.
    """
    max_depth, bits = tokenizer.config.num_codebooks, (tokenizer.config.codebook_size - 1).bit_length()
    original = mel_levels(coded.audio, coded.sample_rate)
    costs = []
    for depth in sorted({*(2**n for n in range(max_depth.bit_length())), max_depth}):
        decoded = mel_levels(decode_at(tokenizer, coded, depth), coded.sample_rate)
        num_bytes = -(-len(coded.codes) * depth * bits // 8)
        costs.append(
            DepthCost(
                depth=depth,
                bit_per_second=tokenizer.config.bitrate(depth),
                num_bytes=num_bytes,
                times_smaller=2 * len(coded.audio) / num_bytes,
                distance_db=float(np.abs(decoded - original).mean()),
            )
        )
    return costs
