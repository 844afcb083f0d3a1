"""Causal pre-norm Transformer layers, the only building block of CAT, and the stages made of them."""

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tokenizer.config import StageConfig
from tokenizer.layers.attention import attend, frequencies, rotate_projected
from tokenizer.layers.chunk import Chunk, no_cache
from tokenizer.layers.small_matmul import Product
from tokenizer.layers.streaming import StageCache, capacity

Multiply = Callable[[Tensor], Tensor]
"""A linear map of the last axis, x -> x W."""


class LayerParts(NamedTuple):
    """Weights and linear maps of a layer; the maps are modules, or in a stream `Product`s.

    A streamed frame is so little work that looking parameters up in their modules would cost as much.
    """

    num_heads: int
    window: int
    attention_norm: tuple[Tensor, Tensor]
    qkv: Multiply
    attention_out: Multiply
    attention_scale: Float[Tensor, " d"]
    ffn_norm: tuple[Tensor, Tensor]
    ffn_in: Multiply
    ffn_out: Multiply
    ffn_scale: Float[Tensor, " d"]


def run_layer(p: LayerParts, x: Float[Tensor, "n d"], chunk: Chunk, index: int) -> Float[Tensor, "n d"]:
    """Compute one layer: attention and feed-forward, each pre-normed, scaled and added to the residual.

    Args:
        p: Weights and linear maps of the layer.
        x: All steps of all signals, one signal below the other, [b * t, d].
        chunk: The steps of this call.
        index: Index of the layer in its stage.

    Returns:
        The layer's output [b * t, d].
    """
    width = x.shape[-1:]
    qkv = p.qkv(torch.layer_norm(x, width, *p.attention_norm))
    qkv = qkv.view(-1, chunk.steps, 3, p.num_heads, width[0] // p.num_heads)
    qkv = rotate_projected(qkv, chunk.rotary_factors)
    q, k, v = chunk.extend(index, qkv.permute(2, 0, 3, 1, 4))
    heads = attend(q, k, v, p.window, chunk.mask).transpose(1, 2).reshape(x.shape)
    x = torch.addcmul(x, p.attention_scale, p.attention_out(heads))
    inner = _gelu(p.ffn_in(torch.layer_norm(x, width, *p.ffn_norm)))
    return torch.addcmul(x, p.ffn_scale, p.ffn_out(inner))


class Layer(nn.Module):
    """Attention and GELU feed-forward, each behind a LayerNorm and a per-channel gain (LayerScale)."""

    def __init__(self, config: StageConfig, window: int, layer_scale: float) -> None:
        super().__init__()
        self.num_heads, self.window = config.num_heads, window
        self.attention_norm = nn.LayerNorm(config.dim)
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.attention_out = nn.Linear(config.dim, config.dim, bias=False)
        self.attention_scale = nn.Parameter(torch.full((config.dim,), layer_scale))
        self.ffn_norm = nn.LayerNorm(config.dim)
        self.ffn_in = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.ffn_out = nn.Linear(config.ffn_dim, config.dim, bias=False)
        self.ffn_scale = nn.Parameter(torch.full((config.dim,), layer_scale))

    def forward(self, x: Float[Tensor, "n d"], chunk: Chunk, index: int) -> Float[Tensor, "n d"]:
        """Compute the layer, as `run_layer` does, by its modules."""
        return run_layer(self.parts(lambda linear: linear), x, chunk, index)

    def parts(self, product: Callable[[nn.Linear], Multiply]) -> LayerParts:
        """Return the layer's parameters themselves, and its linear maps in the form that `product` gives.

        Args:
            product: From a linear module to what computes its map.

        Returns:
            The parts for `run_layer`.
        """
        return LayerParts(
            self.num_heads,
            self.window,
            (self.attention_norm.weight, self.attention_norm.bias),
            product(self.qkv),
            product(self.attention_out),
            self.attention_scale,
            (self.ffn_norm.weight, self.ffn_norm.bias),
            product(self.ffn_in),
            product(self.ffn_out),
            self.ffn_scale,
        )


class Stage(nn.Module):
    """A stack of layers at one frame rate (paper 3.1), without a final norm.

    It has a projection in or out only where the widths differ.
    """

    def __init__(self, config: StageConfig, window: int, rope_period: float, layer_scale: float) -> None:
        super().__init__()
        self.config, self.window, self.rope_period = config, window, rope_period
        self.project_in = _projection(config.input_dim, config.dim)
        self.layers = cast(
            "list[Layer]", nn.ModuleList(Layer(config, window, layer_scale) for _ in range(config.num_layers))
        )
        self.project_out = _projection(config.dim, config.output_dim)

    def forward(self, x: Float[Tensor, "b t i"], cache: StageCache | None = None) -> Float[Tensor, "b t o"]:
        """Compute the stage.

        Args:
            x: Steps of b signals [b, t, i].
            cache: Continues streams, and is updated; None for whole signals.

        Returns:
            Features of the same steps [b, t, o].
        """
        batch, steps, _ = x.shape
        project_in, layers, project_out = cache.parts if cache else (self.project_in, None, self.project_out)
        x = project_in(x.flatten(0, 1))
        chunk = cache.extend(steps, batch) if cache else no_cache(x, steps, self.window, self._frequencies())
        for index, layer in enumerate(self.layers):
            x = run_layer(layers[index], x, chunk, index) if layers else layer(x, chunk, index)
        out = project_out(x).view(batch, steps, -1)
        if cache and cache.adaptations is not None:
            out = out + x.view(batch, steps, -1) @ cache.adaptations[:batch].mT
        return out

    def cache(self, batch: int) -> StageCache:
        """Return an empty cache, for streams of `batch` signals."""
        heads, weight = self.config.num_heads, self.layers[0].qkv.weight
        shape = (len(self.layers), 2, batch, heads, capacity(self.window), self.config.dim // heads)
        layers = [layer.parts(_product) for layer in self.layers]
        parts = _product(self.project_in), layers, _product(self.project_out)
        return StageCache(weight.new_zeros(shape), self.window, self._frequencies(), parts)

    def _frequencies(self) -> Tensor:
        head_dim = self.config.dim // self.config.num_heads
        return frequencies(head_dim, self.rope_period, self.layers[0].qkv.weight.device)


def fold(x: Float[Tensor, "b t d"], patch: int) -> Float[Tensor, "b u e"]:
    """Join `patch` neighbouring steps into one (patchify, paper 3.1).

    Args:
        x: [b, t, d], where t is a multiple of `patch`.
        patch: Steps that become one.

    Returns:
        [b, t / patch, d * patch]; feature c of step i of a patch goes to c * patch + i.
    """
    batch, steps, width = x.shape
    return x.reshape(batch, -1, patch, width).transpose(-1, -2).reshape(batch, steps // patch, -1)


def unfold(x: Float[Tensor, "b u e"], patch: int) -> Float[Tensor, "b t d"]:
    """Split each step into `patch` steps: the exact inverse of `fold`.

    Args:
        x: [b, u, e], where e is a multiple of `patch`.
        patch: Steps that one becomes.

    Returns:
        [b, u * patch, e / patch].
    """
    batch, steps, _ = x.shape
    return x.reshape(batch, steps, -1, patch).transpose(-1, -2).reshape(batch, steps * patch, -1)


def _gelu(x: Tensor) -> Tensor:
    """Compute GELU, in place where no gradient is wanted: this is the largest tensor of a long clip."""
    return F.gelu(x) if x.requires_grad else torch.ops.aten.gelu_(x)


def _product(module: nn.Module) -> Multiply:
    return Product(module.weight) if isinstance(module, nn.Linear) else module


def _projection(input_dim: int, output_dim: int) -> nn.Module:
    return nn.Identity() if input_dim == output_dim else nn.Linear(input_dim, output_dim, bias=False)
