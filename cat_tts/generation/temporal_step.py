"""The Temporal Transformer for one new row of every take at a time, and its cache of keys and values.

`transformers` reads prompts; this continues them, with the same weights, at a fraction of the overhead.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from cat_tts.generation.cuda_graphs import Replay
from cat_tts.generation.fused_layers import Layer, Norm
from cat_tts.generation.int8_linear import Weights
from cat_tts.model.tts import CatTTS

BLOCK = 256
"""Positions by which the cache grows."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """The next row of a batch of takes."""

    x: Float[Tensor, "n d"]
    positions: Float[Tensor, " n"]
    place: int | Int[Tensor, " n"]
    """Where in the cache its keys and values go: a position for all, or places in the flattened cache."""
    seen: int
    """Positions of the cache that are read."""
    mask: Bool[Tensor, "n 1 1 p"] | None
    """Those that belong to a take, where not all do."""


class TemporalStep:
    """Takes lie in the rows of a cache, each as long as it is; a step adds one position to the first n."""

    def __init__(self, model: CatTTS, rows: int, weights: Weights = "float") -> None:
        config = model.config.temporal
        self.model = model
        self.layers = [Layer(layer, config, weights) for layer in model.temporal.layers]
        gain = model.temporal.norm.weight.detach()
        self.norm = Norm(gain)
        self.scale = self.norm.folded(gain.new_ones(1, config.dim))
        self.empty(rows)
        half = torch.arange(0, config.head_dim, 2, device=gain.device, dtype=torch.float32)
        frequency = model.config.rope_theta ** -(half / config.head_dim)
        self.frequency = torch.cat([frequency, frequency])
        self.sign = torch.cat([-torch.ones_like(frequency), torch.ones_like(frequency)])
        self.qk_gains = [
            torch.cat([layer.q_gain.expand(layer.heads, -1), layer.k_gain.expand(layer.kv_heads, -1)])
            * config.head_dim**0.5
            for layer in self.layers
        ]

    def empty(self, rows: int) -> None:
        """Begin with an empty cache, of so many takes."""
        config = self.model.config.temporal
        shape = (rows, BLOCK, 2 * config.num_kv_heads, config.head_dim)
        self._graphs: dict[int, Replay] = {}
        self.cache = [self.norm.gain.new_zeros(shape) for _ in self.layers]

    def twin(self) -> "TemporalStep":
        """The same weights with an empty cache of its own."""
        other = copy.copy(self)
        other.empty(len(self.cache[0]))
        return other

    @property
    def capacity(self) -> int:
        return self.cache[0].shape[1]

    @property
    def cache_bytes(self) -> int:
        return sum(layer.nbytes for layer in self.cache)

    def prefill(
        self, row: int, rows: Int[Tensor, "t c"], positions: Float[Tensor, " t"] | None, depth: int
    ) -> Float[Tensor, " d"]:
        """Read a prompt into row `row` of the cache; the state after it."""
        cache = DynamicCache()
        places = None if positions is None else positions[None]
        state = self.model.states(self.model.embed(rows[None], depth), None, cache, places)[0, -1]
        self.reserve(len(rows))
        for ours, layer in zip(self.cache, cast("list[DynamicLayer]", cache.layers), strict=True):
            assert layer.keys is not None and layer.values is not None
            ours[row, : len(rows)] = torch.cat([layer.keys, layer.values], 1)[0].transpose(0, 1)
        return state

    def reserve(self, positions: int) -> None:
        """Grow the cache, if need be, so that rows of so many positions fit."""
        if positions > self.capacity:
            self._graphs.clear()
            size = -(-positions // BLOCK) * BLOCK
            for i, old in enumerate(self.cache):
                self.cache[i] = old.new_zeros((old.shape[0], size, *old.shape[2:]))
                self.cache[i][:, : old.shape[1]] = old

    def move(self, source: int, target: int) -> None:
        """Let row `target` of the cache be what row `source` is."""
        for layer in self.cache:
            layer[target] = layer[source]

    def __call__(
        self,
        x: Float[Tensor, "n d"],
        positions: Float[Tensor, " n"],
        lengths: Sequence[int],
        *,
        static: bool = False,
    ) -> Float[Tensor, "n d"]:
        """States after one more row, written behind the `lengths` rows that each take has.

        `static` attends to the whole cache, masked, so that shapes change only where it grows. On CUDA that
        is a graph, and the result lives until the next call.
        """
        seen, mask, place = max(lengths) + 1, None, lengths[0]
        if static or any(length != place for length in lengths):
            seen, ends = self.capacity if static else seen, torch.tensor(lengths).to(x.device)
            mask = (torch.arange(seen, device=x.device) <= ends[:, None])[:, None, None]
            place = torch.arange(len(lengths), device=x.device) * self.capacity + ends
        row = Row(x=x, positions=positions, place=place, seen=seen, mask=mask)
        if not (static and x.is_cuda):
            return self._make(row)
        if len(x) not in self._graphs:
            self._graphs[len(x)] = Replay(self._make, row)
        return self._graphs[len(x)](row)

    def _make(self, row: Row) -> Float[Tensor, "n d"]:
        x, rows = row.x, row.x.shape[0]
        angle = row.positions[:, None, None] * self.frequency
        cosine, sine = angle.cos().to(x.dtype), (angle.sin() * self.sign).to(x.dtype)
        for layer, gain, cache in zip(self.layers, self.qk_gains, self.cache, strict=True):
            qkv = layer.qkv(layer.norm(x)).view(rows, -1, layer.head_dim)
            qk = qkv[:, : -layer.kv_heads]
            length = torch.linalg.vector_norm(qk, dim=-1, keepdim=True, dtype=torch.float32)
            qk = (qk / length.hypot_(layer.floor)).to(x.dtype) * gain
            # Half-split rotation; the sine is negative where its partner is subtracted.
            turned = torch.addcmul(qk * cosine, qk.roll(layer.head_dim // 2, -1), sine)
            kv = torch.cat([turned[:, layer.heads :], qkv[:, -layer.kv_heads :]], 1)
            if isinstance(row.place, int):
                cache[:rows, row.place] = kv
            else:
                cache.flatten(0, 1).index_copy_(0, row.place, kv)
            keys, values = cache[:rows, : row.seen].transpose(1, 2).chunk(2, 1)
            q = turned[:, : layer.heads].view(rows, layer.kv_heads, -1, layer.head_dim)
            x = layer.finish(x, F.scaled_dot_product_attention(q, keys, values, attn_mask=row.mask))
        return self.norm(x) * self.scale
