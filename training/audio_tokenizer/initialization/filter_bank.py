"""Analytic initialization of the first two encoder stages: a filter bank, and its logarithm.

A randomly initialized encoder spends most of a short training on learning that phase does not matter and that
loudness is logarithmic. Both can be written down as Transformer blocks. In either stage attention writes
a constant into two channels, so that LayerNorm hardly changes levels. The feed-forward block of the first
rectifies windowed waves; that of the second is a curve, fitted to the logarithm of its input. Some waves
are longer than a patch (`training.audio_tokenizer.initialization.long_windows`).
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformers.audio_utils import hertz_to_mel, mel_to_hertz

from tokenizer import AudioTokenizer, TokenizerConfig
from tokenizer.layers.transformer import Layer, Stage, fold
from training.audio_tokenizer.initialization import long_windows
from training.audio_tokenizer.initialization.long_windows import CHANNELS, LONG_BANDS

FIXED_STAGES = 2
"""Stages that are calculated here and that training keeps fixed: it would unlearn them."""
FULL_PATCH_BANDS, HALF_PATCH_BANDS = 80, 36
"""Bands of a whole patch, below `SPLIT_HZ`, and of each half of it, above."""
MIN_HZ, SPLIT_HZ, MAX_HZ = 60.0, 3000.0, 11_500.0
"""Frequencies, in Hz, of the lowest band, between the two kinds of bands, and of the highest."""
PHASES = 4
"""Phases in which each wave is rectified, with both signs."""
KNEES = 8
"""Hidden units of a band's logarithm."""
SHORT_BANDS = FULL_PATCH_BANDS + 2 * HALF_PATCH_BANDS
"""Bands within a patch."""
BANDS = SHORT_BANDS + LONG_BANDS
CONSTANT = 60.0
"""Value of the two constant channels, with both signs."""
TRANSFORM_GAIN = 3.0
"""Gain of the transform: speech then weighs little beside `CONSTANT`."""
MAXIMUM_QUANTILE = 0.999
"""Quantile of a band's magnitudes that counts as its maximum."""
MIN_RELATIVE_MAXIMUM = 0.02
"""Least maximum of a band, as a part of the loudest band's."""
RECTIFIER_INPUT_LEVEL, RECTIFIER_OUTPUT_LEVEL = 200.0, 3.0
"""Value that a band's maximum becomes before the rectifiers, and behind them."""
FLOOR, MIN_RELATIVE_KNEE = 1e-4, 1e-5
"""Magnitude below which the logarithm is flat, and the lowest knee, as a part of `RECTIFIER_OUTPUT_LEVEL`."""
KNEE_NORM_GAIN = 128.0
"""Gain of a norm, so that steep slopes behind it can be stored in half precision."""


def has_room(config: TokenizerConfig) -> bool:
    """Return whether the encoder begins with two stages of one frame rate that are wide enough."""
    if len(config.encoder) <= FIXED_STAGES:
        return False
    first, second = config.encoder[:FIXED_STAGES]
    return (
        first.patch_size % 2 == 0
        and second.patch_size == 1
        and first.output_dim == second.dim
        and first.dim >= first.patch_size + BANDS + CHANNELS + 3
        and first.num_heads > CHANNELS * first.num_heads // first.dim
        and long_windows.COEFFICIENTS % (first.dim // first.num_heads) == 0
        and second.dim >= 2 * BANDS + 3
        and BANDS <= second.output_dim != second.dim
        and first.ffn_dim >= BANDS * 2 * PHASES
        and second.ffn_dim > BANDS * KNEES
    )


@torch.no_grad()
def install(tokenizer: AudioTokenizer, audio: Float[Tensor, "b s"]) -> None:
    """Make the first two stages a filter bank and its logarithm, in place, calibrated on `audio`.

    Afterwards the second stage outputs the bands' logarithms, each around 0, and zeros behind them.

    Args:
        tokenizer: The tokenizer.
        audio: Speech.

    Raises:
        ValueError: the encoder does not begin with two such stages, or they are too narrow.
    """
    if not has_room(tokenizer.config):
        raise ValueError(
            "a filter bank needs a first encoder stage of an even patch_size, of "
            f"dim >= patch_size + {BANDS + CHANNELS + 3} and ffn_dim >= {BANDS * 2 * PHASES}, "
            f"and a second one of patch_size=1, dim >= {2 * BANDS + 3}, "
            f"ffn_dim > {BANDS * KNEES} and output_dim >= {BANDS}: choose another preset"
        )
    first, second = tokenizer.encoder[:FIXED_STAGES]
    x = fold(audio[:, :, None], first.config.patch_size)
    patch, sample_rate = first.config.patch_size, tokenizer.config.sample_rate
    filters, transform = waves(patch, sample_rate), cosines(patch)
    long_filters = long_windows.wave_coefficients(
        long_windows.long_waves(patch, sample_rate, PHASES), transform
    )
    copies = long_windows.copied_patches(x, TRANSFORM_GAIN * transform, first.config.dim)
    magnitudes, long_magnitudes = _magnitudes(x, filters), _magnitudes(copies, long_filters)
    long_tops = _band_maxima(long_magnitudes)
    _rectify(first, filters, _band_maxima(magnitudes))
    _rectify_long(first, long_filters, long_tops, tokenizer.config.rope_period)
    long_logarithms = long_windows.WEIGHT * (long_magnitudes / long_tops + long_windows.FLOOR).log10()
    _take_logarithms(second, first(x), torch.cat([(magnitudes + FLOOR).log10(), long_logarithms], 1))


def _magnitudes(
    x: Float[Tensor, "b t s"], filters: Float[Tensor, "bands phases s"]
) -> Float[Tensor, "n bands"]:
    """Filter and rectify all steps of a batch; return the mean over the phases."""
    parts = [(part @ filters.flatten(0, 1).mT).unflatten(-1, filters.shape[:2]).abs().mean(-1) for part in x]
    return torch.cat(parts)


def _band_maxima(magnitudes: Float[Tensor, "n bands"]) -> Float[Tensor, " bands"]:
    tops = torch.quantile(magnitudes[:: 1 + len(magnitudes) // 50_000], MAXIMUM_QUANTILE, 0)
    return tops.clamp(min=float(tops.max()) * MIN_RELATIVE_MAXIMUM)


def _rectify(stage: Stage, filters: Float[Tensor, "bands phases s"], tops: Float[Tensor, " bands"]) -> None:
    patch, layer, dim = stage.config.patch_size, stage.layers[0], stage.config.dim
    _write_constants(layer)
    transform = cosines(patch)
    stage.project_in.get_parameter("weight").zero_()[:patch] = TRANSFORM_GAIN * transform
    deviation = CONSTANT * math.sqrt(2 / dim)
    gains = RECTIFIER_INPUT_LEVEL * deviation / TRANSFORM_GAIN / tops
    signed = gains[:, None, None, None] * torch.stack([filters, -filters], 2) @ transform.T
    layer.ffn_in.weight.zero_()[: SHORT_BANDS * 2 * PHASES, :patch] = signed.flatten(0, 2)
    units = torch.arange(BANDS * 2 * PHASES).view(BANDS, -1)
    level = RECTIFIER_OUTPUT_LEVEL / RECTIFIER_INPUT_LEVEL / PHASES
    layer.ffn_out.weight.zero_()[patch + torch.arange(BANDS)[:, None], units] = level
    _select_bands(stage, patch)


def _rectify_long(
    stage: Stage, filters: Float[Tensor, "bands phases c"], tops: Float[Tensor, " bands"], rope_period: float
) -> None:
    """Make attention copy the last patches, and units behind those of the short windows rectify them."""
    layer, dim = stage.layers[0], stage.config.dim
    first = stage.config.patch_size + BANDS
    long_windows.copy_patches(layer, first, dim - 3, rope_period)
    deviation = CONSTANT * math.sqrt(2 / dim)
    gains = RECTIFIER_INPUT_LEVEL * deviation / long_windows.GAIN / tops
    signed = gains[:, None, None, None] * torch.stack([filters, -filters], 2)
    rows = slice(SHORT_BANDS * 2 * PHASES, BANDS * 2 * PHASES)
    layer.ffn_in.weight[rows, first : first + CHANNELS] = signed.flatten(0, 2)


def _take_logarithms(stage: Stage, x: Float[Tensor, "b t d"], wanted: Float[Tensor, "n bands"]) -> None:
    """Let a band's units fall to 0 where it passes their knee, so that none is large and nothing cancels."""
    config, layer = stage.config, stage.layers[0]
    _write_constants(layer)
    plus, zero, out = config.dim - 2, config.dim - 3, layer.ffn_out.weight
    layer.ffn_in.weight.zero_()
    out.zero_()
    normed = F.layer_norm(x + _constants(config.dim), x.shape[-1:]).flatten(0, 1)
    unit, always = normed[:, plus].mean(), F.gelu(torch.tensor(3.0))
    values = normed[:, :BANDS] - normed[:, zero : zero + 1]
    layer.ffn_in.weight[BANDS * KNEES, plus] = 3 / unit
    layer.ffn_norm.weight[[*range(BANDS), zero]] = KNEE_NORM_GAIN
    top = RECTIFIER_OUTPUT_LEVEL / (CONSTANT * math.sqrt(2 / config.dim))
    knees = top * MIN_RELATIVE_KNEE ** (torch.arange(KNEES) / (KNEES - 1))
    for band in range(BANDS):
        units = F.gelu(3 * (1 - values[:, band, None] / knees))
        known = torch.cat([units, torch.ones(len(units), 1)], 1)
        fitted = linear_map(known, (wanted[:, band] - wanted[:, band].mean())[:, None])[:, 0]
        rows = slice(band * KNEES, (band + 1) * KNEES)
        layer.ffn_in.weight[rows, band] = -3 / knees / KNEE_NORM_GAIN
        layer.ffn_in.weight[rows, zero] = 3 / knees / KNEE_NORM_GAIN
        layer.ffn_in.weight[rows, plus] = 3 / unit
        out[BANDS + band, rows] = fitted[:KNEES]
        out[BANDS + band, BANDS * KNEES] = fitted[KNEES] / always
    _select_bands(stage, BANDS)


def linear_map(x: Float[Tensor, "n i"], y: Float[Tensor, "n o"]) -> Float[Tensor, "i o"]:
    """Fit the matrix from x to y, by least squares with a little ridge."""
    gram = x.mT.double() @ x.double()
    gram += 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram, x.mT.double() @ y.double()).float()


def _write_constants(layer: Layer) -> None:
    """Make attention write `CONSTANT` into the last channel but one, its negative into the last."""
    dim = layer.ffn_scale.shape[0]
    layer.attention_norm.weight.zero_()
    layer.attention_norm.bias.zero_()
    layer.attention_norm.bias[dim - 3] = 1
    layer.qkv.weight.zero_()
    layer.qkv.weight[2 * dim, dim - 3] = 1
    layer.attention_out.weight.zero_()
    layer.attention_out.weight[:, 0] = _constants(dim)
    layer.attention_scale.fill_(1)
    layer.ffn_scale.fill_(1)


def _constants(dim: int) -> Float[Tensor, " d"]:
    written = torch.zeros(dim)
    written[-2:] = torch.tensor([CONSTANT, -CONSTANT])
    return written


def _select_bands(stage: Stage, first: int) -> None:
    """Make the stage's outputs its bands, which begin at channel `first`, and zeros."""
    weight = stage.project_out.get_parameter("weight").zero_()
    weight[torch.arange(BANDS), first + torch.arange(BANDS)] = 1


def cosines(size: int) -> Float[Tensor, "s s"]:
    """Return the matrix of the orthonormal cosine transform (DCT-II), lowest frequency first."""
    steps, k = torch.arange(size) + 0.5, torch.arange(size)[:, None]
    rows = torch.cos(math.pi / size * steps * k) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows


def waves(patch: int, sample_rate: int) -> Float[Tensor, "bands phases s"]:
    """Return the waveforms of the bands, each of norm 1.

    They are `FULL_PATCH_BANDS` of whole patches, then `HALF_PATCH_BANDS` in either half.
    """
    half = patch // 2
    mels = [hertz_to_mel(hertz) for hertz in (MIN_HZ, SPLIT_HZ, MAX_HZ)]
    sharp = mel_to_hertz(np.linspace(mels[0], mels[1], FULL_PATCH_BANDS))
    quick = mel_to_hertz(np.linspace(mels[1], mels[2], HALF_PATCH_BANDS + 1)[1:])
    parts = [_windowed(sharp, patch, sample_rate)]
    parts += [F.pad(_windowed(quick, half, sample_rate), (i * half, half - i * half)) for i in range(2)]
    return torch.cat(parts)


def _windowed(hertz: "float | np.ndarray", size: int, sample_rate: int) -> Float[Tensor, "bands phases s"]:
    angle = 2 * math.pi * torch.as_tensor(hertz).float()[:, None, None] * torch.arange(size) / sample_rate
    shifted = angle + math.pi * torch.arange(PHASES)[:, None] / PHASES
    return F.normalize(shifted.cos() * torch.hann_window(size + 2)[1:-1], dim=-1)
