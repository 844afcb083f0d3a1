"""A first encoder layer that hears like a filter bank, before anything is learnt.

Left to itself, an encoder spends most of a short training on finding out that phase does not matter. Here the
first projection is a cosine transform of the patch, and the first feed-forward block computes what a windowed
filter bank would: hidden units rectify the two phases of each frequency, and channels of their own, behind
those of the transform, receive the mean of a band.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers.audio_utils import hertz_to_mel, mel_to_hertz

from tokenizer import AudioTokenizer
from tokenizer.config import StageConfig

LOUDNESS = 3.0
"""Gain of the transform: a patch of speech then weighs as much as what the layers add to it."""
STEEPNESS = 2.0
"""Standard deviation of what is rectified, where GELU is nearly a rectifier."""
FREQUENCIES = 2
"""Of a band."""
PHASES = 4
"""Hidden units a frequency needs: cosine and sine, each with both signs."""
LOWEST, HIGHEST = 80.0, 0.96
"""Hz, and part of the highest frequency there is."""
REST = 0.1
"""What is left of the random weights that would write into the bands, or read the rectified units."""


@torch.no_grad()
def install(tokenizer: AudioTokenizer, audio: Float[Tensor, "b s"]) -> None:
    """Make the first stage of `tokenizer` a filter bank, in place; `audio` tells how loud each frequency is.

    Raises:
        ValueError: the stage is too narrow for a transform of its patch and bands beside it.
    """
    stage, layer = tokenizer.encoder[0], tokenizer.encoder[0].layers[0]
    patch, bands = stage.config.patch_size, stage.config.dim - stage.config.patch_size
    units = bands * FREQUENCIES * PHASES
    if not has_room(stage.config):
        raise ValueError(
            "a filter bank needs a first stage at least 8 channels wider than its patch, and "
            f"{FREQUENCIES * PHASES} hidden units for each of them; this one has patch_size={patch}, "
            f"dim={stage.config.dim}, ffn_dim={stage.config.ffn_dim}: choose another preset"
        )
    transform = cosines(patch)
    stage.project_in.get_parameter("weight")[:patch] = LOUDNESS * transform
    waves = windowed_waves(bands * FREQUENCIES, patch, tokenizer.config.sample_rate)
    weights = torch.stack([waves, -waves], 1).flatten(0, 1) @ transform.T
    patches = audio.reshape(-1, patch)
    heard = layer.ffn_norm(stage.project_in(patches[patches.abs().amax(1) > 3e-3]))[:, :patch]
    weights *= STEEPNESS / (heard @ weights.T).square().mean(0).sqrt().clamp(min=1e-6)[:, None]

    layer.ffn_in.weight[:units] = 0
    layer.ffn_in.weight[:units, :patch] = weights
    layer.ffn_out.weight[:, :units] *= REST
    layer.ffn_out.weight[patch:] *= REST
    own = torch.arange(units).view(bands, -1)
    layer.ffn_out.weight[patch + torch.arange(bands)[:, None], own] = 1 / own.shape[1]
    layer.ffn_scale[patch:] = 1.0


def has_room(stage: StageConfig) -> bool:
    """Whether a first stage is wide enough for a transform of its patch and bands beside it."""
    bands = stage.dim - stage.patch_size
    return bands >= 8 and bands * FREQUENCIES * PHASES <= stage.ffn_dim


def cosines(size: int) -> Float[Tensor, "s s"]:
    """The orthonormal cosine transform (DCT-II), lowest frequency first."""
    steps, k = torch.arange(size) + 0.5, torch.arange(size)[:, None]
    rows = torch.cos(math.pi / size * steps * k) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows


def windowed_waves(count: int, size: int, sample_rate: int) -> Float[Tensor, "2*n s"]:
    """Cosine and sine of `count` frequencies under a Hann window, evenly spaced on the mel scale."""
    low, high = (hertz_to_mel(hertz) for hertz in (LOWEST, HIGHEST * sample_rate / 2))
    hertz = torch.from_numpy(mel_to_hertz(np.linspace(low, high, count))).float()
    angle = 2 * math.pi * hertz[:, None] * torch.arange(size) / sample_rate
    window = torch.hann_window(size + 2)[1:-1]
    return torch.stack([angle.cos(), angle.sin()], 1).flatten(0, 1) * window
