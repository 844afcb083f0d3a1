"""Bands of long windows for the calculated filter bank: they resolve the harmonics of low voices.

A patch of 20 ms holds two periods of a man's voice, which is too little to measure a pitch by. The attention
of the first encoder stage can look back: heads whose queries and keys are constants, rotated against each
other by the rotary embedding, attend to the step that is an exact number of steps earlier. They copy the low
part of the last patches' cosine transforms, and the feed-forward block rectifies waves that run through all
of these patches. The copies have gone through LayerNorm, patch by patch, so these bands say where harmonics
are, and not how loud they are.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformers.audio_utils import hertz_to_mel, mel_to_hertz

from tokenizer.layers.attention import frequencies
from tokenizer.layers.transformer import Layer

PATCHES = 3
"""Patches that a window spans, the present one included: 60 ms."""
COEFFICIENTS = 64
"""Coefficients of a patch's cosine transform that are copied: up to 1.6 kHz."""
CHANNELS = PATCHES * COEFFICIENTS
"""Channels that hold the copies."""
LONG_BANDS = 56
"""Bands of long windows."""
MIN_HZ, MAX_HZ = 60.0, 1000.0
"""Frequencies of the lowest and the highest band."""
ROTARY_PAIRS = 8
"""Pairs of a head's features that select the step: those that rotate fastest."""
SHARPNESS = 24.0
"""Sharpness of the attention to a step: its neighbours count exp(-SHARPNESS * 0.68) as much."""
GAIN = 0.2
"""Gain of the copies, so that they weigh little in the next norm."""
WEIGHT = 0.3
"""Weight of the bands' logarithms: they say little about spectra, and the noise that they are in pauses would
displace the principal components of spectra in the stages behind."""
FLOOR = 1e-2
"""Part of a band's maximum below which its logarithm is flat."""


def long_waves(patch: int, sample_rate: int, phases: int) -> Float[Tensor, "bands phases s"]:
    """Return the waveforms of the bands: windowed, of norm 1, ending with the present patch.

    Args:
        patch: Samples of a patch.
        sample_rate: Samples a second.
        phases: Phases of each band.
    """
    mels = np.linspace(hertz_to_mel(MIN_HZ), hertz_to_mel(MAX_HZ), LONG_BANDS)
    hertz = torch.as_tensor(mel_to_hertz(mels)).float()[:, None, None]
    time = torch.arange(PATCHES * patch)
    angle = 2 * math.pi * hertz * time / sample_rate + math.pi * torch.arange(phases)[:, None] / phases
    return F.normalize(angle.cos() * torch.hann_window(len(time) + 2)[1:-1], dim=-1)


def wave_coefficients(
    waves: Float[Tensor, "bands phases s"], transform: Float[Tensor, "p p"]
) -> Float[Tensor, "bands phases c"]:
    """Return the waves as coefficients of what `copy_patches` copies.

    Args:
        waves: Waveforms, see `long_waves`.
        transform: The cosine transform of a patch.

    Returns:
        The low coefficients of each patch, the oldest patch first.
    """
    parts = waves.unflatten(-1, (PATCHES, -1)) @ transform[:COEFFICIENTS].T
    return parts.flatten(-2)


def copied_patches(
    x: Float[Tensor, "b t p"], transform: Float[Tensor, "p p"], dim: int
) -> Float[Tensor, "b t c"]:
    """Compute what `copy_patches` makes a layer copy.

    Args:
        x: Patches. The first one stands in for those before it.
        transform: Transform of the stage's projection, gain included.
        dim: Width of the layer.

    Returns:
        The normalised low coefficients of the last patches of each step, the oldest patch first.
    """
    normed = F.layer_norm(F.pad(x @ transform.T, (0, dim - x.shape[-1])), (dim,))[..., :COEFFICIENTS]
    steps = torch.arange(x.shape[1])
    return torch.cat([normed[:, (steps - back).clamp(min=0)] for back in reversed(range(PATCHES))], -1)


@torch.no_grad()
def copy_patches(layer: Layer, first: int, constant: int, rope_period: float) -> None:
    """Make the layer's attention copy the low coefficients of the last patches, in place.

    Args:
        layer: Its residual holds a patch's cosine transform from channel 0 on. Its first head is not changed.
        first: First of the `CHANNELS` channels that the copies are written to, `GAIN` times as large.
        constant: Channel that the layer's attention norm sets to 1.
        rope_period: Period of the stage's rotary embedding.
    """
    dim = layer.ffn_scale.shape[0]
    width = dim // layer.num_heads
    layer.attention_norm.weight[:COEFFICIENTS] = 1
    rotation = frequencies(width, rope_period, torch.device("cpu"))[:ROTARY_PAIRS]
    size = math.sqrt(SHARPNESS * math.sqrt(width))
    heads_per_patch = COEFFICIENTS // width
    for position, back in enumerate(reversed(range(PATCHES))):
        for part in range(heads_per_patch):
            head = 1 + position * heads_per_patch + part
            query, key, value = (kind * dim + head * width for kind in range(3))
            pairs = 2 * torch.arange(len(rotation))
            layer.qkv.weight[query + pairs, constant] = size
            layer.qkv.weight[key + pairs, constant] = (size * (back * rotation).cos()).float()
            layer.qkv.weight[key + pairs + 1, constant] = (size * (back * rotation).sin()).float()
            inner = torch.arange(width)
            layer.qkv.weight[value + inner, part * width + inner] = 1
            channels = first + position * COEFFICIENTS + part * width + inner
            layer.attention_out.weight[channels, head * width + inner] = GAIN
