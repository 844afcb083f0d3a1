"""The only building block of CAT: causal pre-norm Transformer layers, and the stages made of them."""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tokenizer.attention import attend, frequencies, rotate
from tokenizer.config import StageConfig
from tokenizer.stream import Chunk, StageCache, alone, capacity


class Layer(nn.Module):
    """Attention and GELU feed-forward, each behind a LayerNorm and a per-channel gain (LayerScale)."""

    def __init__(self, config: StageConfig, window: int, layer_scale: float) -> None:
        super().__init__()
        self.num_heads, self.window = config.num_heads, window
        self.head_dim = config.dim // config.num_heads
        self.attention_norm = nn.LayerNorm(config.dim)
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.attention_out = nn.Linear(config.dim, config.dim, bias=False)
        self.attention_scale = nn.Parameter(torch.full((config.dim,), layer_scale))
        self.ffn_norm = nn.LayerNorm(config.dim)
        self.ffn_in = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.ffn_out = nn.Linear(config.ffn_dim, config.dim, bias=False)
        self.ffn_scale = nn.Parameter(torch.full((config.dim,), layer_scale))

    def forward(self, x: Float[Tensor, "n d"], chunk: Chunk, index: int) -> Float[Tensor, "n d"]:
        """Layer `index` of its stage on all steps of all signals, one below the other."""
        qkv = self.qkv(self.attention_norm(x)).view(-1, chunk.steps, 3, self.num_heads, self.head_dim)
        q, k, v = chunk.extend(index, rotate(qkv, chunk.turns).permute(2, 0, 3, 1, 4))
        heads = attend(q, k, v, self.window, chunk.seen).transpose(1, 2).reshape(x.shape)
        x = torch.addcmul(x, self.attention_scale, self.attention_out(heads))
        return torch.addcmul(x, self.ffn_scale, self.ffn_out(F.gelu(self.ffn_in(self.ffn_norm(x)))))


class Stage(nn.Module):
    """Layers at one frame rate, with a projection in or out only where the widths differ. No final norm."""

    def __init__(self, config: StageConfig, window: int, rope_period: float, layer_scale: float) -> None:
        super().__init__()
        self.config, self.window, self.rope_period = config, window, rope_period
        self.project_in = _projection(config.input_dim, config.dim)
        self.layers = cast(
            "list[Layer]", nn.ModuleList(Layer(config, window, layer_scale) for _ in range(config.num_layers))
        )
        self.project_out = _projection(config.dim, config.output_dim)

    def forward(self, x: Float[Tensor, "b t i"], cache: StageCache | None = None) -> Float[Tensor, "b t o"]:
        x = self.project_in(x)
        shape = x.shape
        chunk = cache.extend(shape[1], shape[0]) if cache else alone(x, self.window, self._frequencies())
        x = x.flatten(0, 1)
        for index, layer in enumerate(self.layers):
            x = layer(x, chunk, index)
        return self.project_out(x.view(shape))

    def cache(self, batch: int) -> StageCache:
        """An empty past, for a stream of `batch` signals."""
        heads, weight = self.config.num_heads, self.layers[0].qkv.weight
        shape = (len(self.layers), 2, batch, heads, capacity(self.window), self.config.dim // heads)
        return StageCache(weight.new_zeros(shape), self.window, self._frequencies())

    def _frequencies(self) -> Tensor:
        layer = self.layers[0]
        return frequencies(layer.head_dim, self.rope_period, layer.qkv.weight.device)


def fold(x: Float[Tensor, "b t d"], patch: int) -> Float[Tensor, "b u e"]:
    """Patchify: `patch` neighbouring steps become one; feature c of step i goes to c * patch + i."""
    return x.unflatten(1, (-1, patch)).transpose(-1, -2).flatten(-2)


def unfold(x: Float[Tensor, "b u e"], patch: int) -> Float[Tensor, "b t d"]:
    """The exact inverse of `fold`."""
    return x.unflatten(-1, (-1, patch)).transpose(-1, -2).flatten(1, 2)


def _projection(input_dim: int, output_dim: int) -> nn.Module:
    return nn.Identity() if input_dim == output_dim else nn.Linear(input_dim, output_dim, bias=False)
