"""The Depth Transformer: one frame's decision and codes, each given the ones before it (paper C.1).

Its sequence has 1 + k positions. Position 0 reads the temporal state and decides: continue or stop.
Position 1 reads that decision and predicts code 1, position j reads code j-1 and predicts code j.
There is no positional encoding: the position's own head, and the embeddings it reads, tell it apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cat_tts.config import TransformerConfig, TTSConfig
from tokenizer.layers.attention import attend

Shapes = Sequence[tuple[int, int]]
"""Groups of frames, and their positions: `[(3, 33), (5, 2)]` are 109 rows, frame after frame."""


@dataclass
class DepthCache:
    """Keys and values of the positions of one frame: allocated once and reused every frame."""

    keys: Float[Tensor, "l b g p d"]
    values: Float[Tensor, "l b g p d"]
    filled: int = 0

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store one layer's keys and values [b, g, p, d] of the next positions; return all of the frame."""
        stop = self.filled + keys.shape[2]
        self.keys[layer, :, :, self.filled : stop] = keys
        self.values[layer, :, :, self.filled : stop] = values
        return self.keys[layer, :, :, :stop], self.values[layer, :, :, :stop]


class SwiGLU(nn.Module):
    """A feed-forward block down(silu(gate x) * up x), without biases."""

    def __init__(self, dim: int, hidden: int, output_dim: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden, bias=False)
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, output_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output [..., output_dim] for `x` [..., dim]."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DepthAttention(nn.Module):
    """Grouped-query attention with normalised queries and keys."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.q_proj = nn.Linear(config.dim, config.num_heads * config.head_dim, bias=False)
        self.k_proj = nn.Linear(config.dim, config.num_kv_heads * config.head_dim, bias=False)
        self.v_proj = nn.Linear(config.dim, config.num_kv_heads * config.head_dim, bias=False)
        self.o_proj = nn.Linear(config.num_heads * config.head_dim, config.dim, bias=False)
        self.q_norm = nn.RMSNorm(config.head_dim, eps=1e-6)
        self.k_norm = nn.RMSNorm(config.head_dim, eps=1e-6)

    def forward(
        self, x: Float[Tensor, "n p d"], layer: int, cache: DepthCache | None
    ) -> Float[Tensor, "n p d"]:
        """Attend over the positions of n frames; with a cache, over the earlier ones too."""
        q, k, v = (part.transpose(1, 2) for part in self._heads(x))
        if cache is not None:
            k, v = cache.append(layer, k, v)
        return self.o_proj(attend(q, k, v, window=k.shape[2]).transpose(1, 2).flatten(2))

    def ragged(self, x: Float[Tensor, "m d"], shapes: Shapes) -> Float[Tensor, "m d"]:
        """Attend inside frames of unequal depths, see `DepthTransformer.ragged`."""
        sizes, attended = [frames * depth for frames, depth in shapes], []
        for (frames, depth), *parts in zip(
            shapes, *(part.split(sizes) for part in self._heads(x)), strict=True
        ):
            q, k, v = (part.unflatten(0, (frames, depth)).transpose(1, 2) for part in parts)
            attended.append(attend(q, k, v, window=depth).transpose(1, 2).flatten(0, 1).flatten(1))
        return self.o_proj(torch.cat(attended))

    def _heads(self, x: Float[Tensor, "*n d"]) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (
            projection(x).unflatten(-1, (-1, self.head_dim))
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.q_norm(q), self.k_norm(k), v


class DepthLayer(nn.Module):
    """Attention over the positions of a frame and a SwiGLU feed-forward, pre-norm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.dim, eps=1e-6)
        self.self_attn = DepthAttention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.dim, eps=1e-6)
        self.mlp = SwiGLU(config.dim, config.ffn_dim, config.dim)

    def forward(
        self, x: Float[Tensor, "*n d"], layer: int, cache: DepthCache | None, shapes: Shapes | None = None
    ) -> Float[Tensor, "*n d"]:
        """Return the output for frames of one depth [n, p, d], or of the depths in `shapes` [m, d]."""
        normed = self.input_layernorm(x)
        attention = self.self_attn
        x = x + (attention(normed, layer, cache) if shapes is None else attention.ragged(normed, shapes))
        return x + self.mlp(self.post_attention_layernorm(x))


class DepthTransformer(nn.Module):
    """From temporal states to the decision and the codes of the next frame (paper C.1)."""

    def __init__(self, config: TTSConfig) -> None:
        super().__init__()
        self.config = config
        outer, inner, hidden = config.temporal.dim, config.depth.dim, config.adapter_dim
        channels = 1 + config.num_codebooks
        self.adapter_in = SwiGLU(outer, hidden, inner) if hidden else nn.Linear(outer, inner, bias=False)
        self.layers = cast(
            "list[DepthLayer]",
            nn.ModuleList(DepthLayer(config.depth) for _ in range(config.depth.num_layers)),
        )
        self.norm = nn.RMSNorm(inner, eps=1e-6)
        self.adapters = nn.ModuleList(SwiGLU(inner, hidden, outer) for _ in range(channels) if hidden)
        self.head_norms = nn.ModuleList(nn.RMSNorm(outer, eps=1e-6) for _ in range(channels) if hidden)
        width = outer if hidden else inner
        self.decision_head = nn.Linear(
            width, config.text_vocab_size if config.full_text_head else 2, bias=False
        )
        self.code_heads = cast(
            "list[nn.Linear]",
            nn.ModuleList(
                nn.Linear(width, config.codebook_size + 1, bias=False) for _ in range(config.num_codebooks)
            ),
        )

    def forward(self, x: Float[Tensor, "n p e"], cache: DepthCache | None = None) -> Float[Tensor, "n p d"]:
        """Compute the hidden states of the next positions of n frames.

        Args:
            x: Inputs [n, p, e]: the temporal state, then embeddings.
            cache: Keys and values of the earlier positions; None where there are none.

        Returns:
            Hidden states [n, p, d].
        """
        x = self.adapter_in(x)
        for i, layer in enumerate(self.layers):
            x = layer(x, i, cache)
        if cache is not None:
            cache.filled += x.shape[1]
        return self.norm(x)

    def ragged(self, x: Float[Tensor, "m e"], shapes: Shapes) -> Float[Tensor, "m d"]:
        """Compute the hidden states of frames of unequal depths, none of them padded.

        Products run over all rows at once and only attention group by group: sharded weights are gathered
        once, and their gradients are not summed up over thirty small passes.

        Args:
            x: Inputs [m, e] of all positions, frame after frame.
            shapes: Groups of frames of one depth, in the order of `x`.

        Returns:
            Hidden states [m, d].
        """
        x = self.adapter_in(x)
        for i, layer in enumerate(self.layers):
            x = layer(x, i, None, shapes)
        return self.norm(x)

    def decision_logits(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        """Return logits [n, v] of position 0: (continue, stop), or all text ids with the full head."""
        return self.decision_head(self._outgoing(hidden, 0))

    def code_logits(self, hidden: Float[Tensor, "n d"], k: int) -> Float[Tensor, "n v"]:
        """Return logits [n, v] of codebook k (from 0), read at position k + 1; the last is the pad code."""
        return self.code_heads[k](self._outgoing(hidden, k + 1))

    def _outgoing(self, hidden: Tensor, channel: int) -> Tensor:
        if self.config.adapter_dim is None:
            return hidden
        return self.head_norms[channel](self.adapters[channel](hidden))

    def cache(self, batch: int) -> DepthCache:
        """Allocate the cache of one frame of `batch` sequences."""
        shape = self.config.depth
        slots = torch.zeros(
            shape.num_layers, batch, shape.num_kv_heads, 1 + self.config.num_codebooks, shape.head_dim
        ).to(self.norm.weight)
        return DepthCache(slots, slots.clone())
