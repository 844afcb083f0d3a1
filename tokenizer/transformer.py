"""The only building block of CAT: causal pre-norm Transformer layers, and the stages made of them."""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tokenizer.attention import Sight, attend, rotary_table, rotate, sight
from tokenizer.config import StageConfig
from tokenizer.stream import Chunk, StageCache


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

    def forward(
        self, x: Float[Tensor, "b t d"], turns: Tensor, seen: Sight, chunk: Chunk | None, index: int
    ) -> Float[Tensor, "b t d"]:
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.num_heads, -1))
        qkv = qkv.permute(2, 0, 3, 1, 4)  # [3, b, h, t, d]
        (q, k), v = rotate(qkv[:2], turns), qkv[2]
        if chunk is not None:
            k, v = chunk.append(index, k, v)
        heads = attend(q, k, v, self.window, seen).transpose(1, 2).flatten(2)
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
        steps, chunk = x.shape[1], None
        x = self.project_in(x)
        if cache is None:
            turns = rotary_table(0, steps, self.head_dim, self.rope_period, x.device)
            seen = sight(steps, steps, self.window, x)
        else:
            chunk = cache.extend(steps, len(x))
            turns, seen = chunk.turns, chunk.seen
        for index, layer in enumerate(self.layers):
            x = layer(x, turns, seen, chunk, index)
        return self.project_out(x)

    @property
    def head_dim(self) -> int:
        return self.config.dim // self.config.num_heads

    def cache(self, batch: int) -> StageCache:
        """An empty past, for a stream of `batch` signals."""
        return StageCache.empty(
            len(self.layers),
            batch,
            self.config.num_heads,
            self.head_dim,
            self.window,
            self.rope_period,
            self.layers[0].qkv.weight,
        )


def fold(x: Float[Tensor, "b t d"], patch: int) -> Float[Tensor, "b u e"]:
    """Patchify: `patch` neighbouring steps become one; feature c of step i goes to c * patch + i."""
    return x.unflatten(1, (-1, patch)).transpose(-1, -2).flatten(-2)


def unfold(x: Float[Tensor, "b u e"], patch: int) -> Float[Tensor, "b t d"]:
    """The exact inverse of `fold`."""
    return x.unflatten(-1, (-1, patch)).transpose(-1, -2).flatten(1, 2)


def _projection(input_dim: int, output_dim: int) -> nn.Module:
    return nn.Identity() if input_dim == output_dim else nn.Linear(input_dim, output_dim, bias=False)
