"""The codec computed the plain way, as the published code does: the reference of `eval.speed.codec`.

It is the same model on the same weights, written from its description and not slowed on purpose. Everything
that could be computed beforehand is computed at every call: weight norms and normalized codebooks of every
level, rotary tables, positions and masks of every layer. A stream attends to a whole ring of past steps under
a mask, whether the ring is empty or full.
"""

import copy
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tokenizer import AudioTokenizer
from tokenizer.layers.transformer import Layer, Stage, fold, unfold


@dataclass
class Ring:
    """Keys and values of one layer's latest steps, each at its position modulo the capacity.

    The published ring has as many slots as the window; this one also has room for the other steps of a
    call, so that a long stream stays equal to offline.
    """

    keys: Float[Tensor, "b h c d"]
    values: Float[Tensor, "b h c d"]
    count: int = 0
    """Steps that were appended."""

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Int[Tensor, " c"]]:
        """Store the keys and values of a chunk.

        Args:
            keys: [b, h, t, d], t at most the capacity c.
            values: [b, h, t, d].

        Returns:
            Keys and values [b, h, c, d] of all slots, and the positions [c] that they hold, negative for
            none.
        """
        capacity, steps = self.keys.shape[2], keys.shape[2]
        slots = torch.arange(self.count, self.count + steps, device=keys.device) % capacity
        self.keys.index_copy_(2, slots, keys)
        self.values.index_copy_(2, slots, values)
        self.count += steps
        last = self.count - 1
        positions = last - (last - torch.arange(capacity, device=keys.device)) % capacity
        return self.keys, self.values, positions


class PublishedStyleCodec:
    """Encodes and decodes with a copy of the weights of a tokenizer.

    Args:
        tokenizer: The codec, which is left unchanged.
    """

    def __init__(self, tokenizer: AudioTokenizer) -> None:
        self.model = copy.deepcopy(tokenizer)
        for parameter in self.model.parameters():
            parameter.data = parameter.data.contiguous()

    @torch.no_grad()
    def encode(
        self, audio: Float[Tensor, "b s"], rings: list[list[Ring]] | None = None
    ) -> Int[Tensor, "b t k"]:
        """Encode whole frames of audio.

        Args:
            audio: [b, s], s a multiple of the frame size.
            rings: From `encoder_rings`, to continue a stream of one frame a call; they are updated.

        Returns:
            Codes [b, t, k].
        """
        x = audio[:, :, None]
        for i, stage in enumerate(self.model.encoder):
            x = _stage(stage, fold(x, stage.config.patch_size), rings[i] if rings else None)
        return self.quantize(x)[0]

    @torch.no_grad()
    def decode(
        self, codes: Int[Tensor, "b t k"], rings: list[list[Ring]] | None = None
    ) -> Float[Tensor, "b s"]:
        """Decode codes of any depth.

        A vocoder, which the published models lack, starts from nothing at every call.

        Args:
            codes: [b, t, k], of the first k codebooks.
            rings: From `decoder_rings`, to continue a stream of one frame a call; they are updated.

        Returns:
            Audio [b, s].
        """
        x = self.dequantize(codes)
        for i, stage in enumerate(self.model.decoder):
            x = unfold(x, self.model.decoder[i - 1].config.patch_size) if i else x
            x = _stage(stage, x, rings[i] if rings else None)
        return self.model.vocoder(x) if self.model.vocoder else x.flatten(1)

    @torch.no_grad()
    def quantize(self, x: Float[Tensor, "b t d"]) -> tuple[Int[Tensor, "b t k"], Float[Tensor, "b t d"]]:
        """Quantize latents by residual quantization under a mask of the lengths.

        Nearest is the smallest squared distance between normalized vectors; the projections are
        convolutions of one step, and the straight-through form of training is kept.

        Args:
            x: Latents [b, t, d].

        Returns:
            Codes [b, t, k], and the latents [b, t, d] that they stand for.
        """
        quantizer, x = self.model.quantizer, x.mT
        mask = (torch.arange(x.shape[-1], device=x.device) < x.shape[-1])[None, None]
        residual, total, codes = _project(quantizer.project_in, x), torch.zeros((), device=x.device), []
        for level in quantizer.layers:
            low = _project(level.project_in, residual * mask)
            unit_latents, rows = F.normalize(low.mT.flatten(0, 1)), F.normalize(level.codebook.weight)
            distance = unit_latents.square().sum(1, keepdim=True) - 2 * unit_latents @ rows.T
            distance = distance + rows.square().sum(1, keepdim=True).T
            code = (-distance).argmax(1).view(low.shape[0], -1)
            row = level.codebook(code).mT
            out = _project(level.project_out, low + (row - low)) * mask
            residual, total = residual - out, total + out
            codes.append(code)
        return torch.stack(codes, -1), _project(quantizer.project_out, total).mT

    @torch.no_grad()
    def dequantize(self, codes: Int[Tensor, "b t k"]) -> Float[Tensor, "b t d"]:
        """Return the latents [b, t, d] of codes: the sum of the projected rows, projected.

        Args:
            codes: [b, t, k], of the first k codebooks.
        """
        total = torch.zeros((), device=codes.device)
        for level, code in zip(self.model.quantizer.layers, codes.unbind(-1), strict=False):
            total = total + _project(level.project_out, level.codebook(code).mT)
        return _project(self.model.quantizer.project_out, total).mT

    def encoder_rings(self, batch: int = 1) -> list[list[Ring]]:
        """Return the state in which `batch` streams to encode, a frame a call, begin."""
        return [_rings(stage, batch, 2**i) for i, stage in enumerate(reversed(self.model.encoder))][::-1]

    def decoder_rings(self, batch: int = 1) -> list[list[Ring]]:
        """Return the state in which `batch` streams to decode, a frame a call, begin."""
        rings, steps = [], 1
        for stage in self.model.decoder:
            rings.append(_rings(stage, batch, steps))
            steps *= stage.config.patch_size
        return rings


def _project(projection: nn.Module, x: Float[Tensor, "b d t"]) -> Float[Tensor, "b e t"]:
    """Apply a weight-normed projection as the published quantizer does, computing the weight anew."""
    weight, bias = cast("nn.Linear", projection).weight, cast("nn.Linear", projection).bias
    return F.conv1d(x.float(), weight[..., None], bias)


def _rings(stage: Stage, batch: int, steps: int) -> list[Ring]:
    config, weight = stage.config, stage.layers[0].qkv.weight
    shape = (batch, config.num_heads, stage.window + steps - 1, config.dim // config.num_heads)
    return [Ring(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in stage.layers]


def _stage(stage: Stage, x: Float[Tensor, "b t i"], rings: list[Ring] | None) -> Float[Tensor, "b t o"]:
    x = stage.project_in(x)
    for i, layer in enumerate(stage.layers):
        update = _attention(layer, layer.attention_norm(x), stage.rope_period, rings[i] if rings else None)
        x = x + layer.attention_scale * update
        x = x + layer.ffn_scale * layer.ffn_out(F.gelu(layer.ffn_in(layer.ffn_norm(x))))
    return stage.project_out(x)


def _attention(layer: Layer, x: Tensor, rope_period: float, ring: Ring | None) -> Tensor:
    steps, first = x.shape[1], ring.count if ring else 0
    qkv = layer.qkv(x).unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind()
    q, k = _rotate(q, first, rope_period), _rotate(k, first, rope_period)
    own = torch.arange(first, first + steps, device=x.device)
    positions = own
    if ring is not None:
        k, v, positions = ring.append(k, v)
    back = own[:, None] - positions
    mask = (back >= 0) & (back < layer.window) & (positions >= 0)
    heads = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return layer.attention_out(heads.transpose(1, 2).flatten(2))


def _rotate(x: Float[Tensor, "b h t d"], first: int, period: float) -> Float[Tensor, "b h t d"]:
    half = torch.arange(0, x.shape[-1], 2, device=x.device, dtype=torch.float32) / x.shape[-1]
    position = torch.arange(first, first + x.shape[2], device=x.device, dtype=torch.float32)
    angle = position[:, None] * torch.pow(period, -half)
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    rotated = even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()
    return torch.stack(rotated, -1).flatten(-2).to(x.dtype)
