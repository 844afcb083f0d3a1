"""The Temporal Transformer for one new row of every sequence at a time, and its key-value cache.

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

from cat_tts.generation.cuda_graphs import RecordedFunction
from cat_tts.generation.fused_layers import FusedLayer, Norm
from cat_tts.generation.int8_linear import Weights
from cat_tts.model.tts import CatTTS

CACHE_BLOCK = 256
"""Positions by which the cache grows."""


@dataclass(frozen=True, kw_only=True)
class RowInputs:
    """The next row of each sequence of a batch."""

    x: Float[Tensor, "n d"]
    positions: Float[Tensor, " n"]
    cache_index: int | Int[Tensor, " n"]
    """Where in the cache keys and values go: a position for all, or indices of the flattened cache."""
    cache_length: int
    """Positions of the cache that are read."""
    mask: Bool[Tensor, "n 1 1 p"] | None
    """Those that belong to a sequence, where not all do."""


class TemporalStep:
    """Continues the sequences in the slots of a cache; a step adds one position to the first n of them."""

    def __init__(self, model: CatTTS, slots: int, weights: Weights = "float") -> None:
        """Fuse the weights of a model; arguments as for `FrameDecoder`."""
        config = model.config.temporal
        self.model = model
        self.layers = [FusedLayer(layer, config, weights) for layer in model.temporal.layers]
        gain = model.temporal.norm.weight.detach()
        self.norm = Norm(gain)
        self.scale = self.norm.folded(gain.new_ones(1, config.dim))
        self.clear(slots)
        half = torch.arange(0, config.head_dim, 2, device=gain.device, dtype=torch.float32)
        frequency = model.config.rope_theta ** -(half / config.head_dim)
        self.frequency = torch.cat([frequency, frequency])
        self.sign = torch.cat([-torch.ones_like(frequency), torch.ones_like(frequency)])
        self.qk_gains = [
            torch.cat([layer.q_gain.expand(layer.heads, -1), layer.k_gain.expand(layer.kv_heads, -1)])
            * config.head_dim**0.5
            for layer in self.layers
        ]

    def clear(self, slots: int) -> None:
        """Begin with an empty cache for so many sequences."""
        config = self.model.config.temporal
        shape = (slots, CACHE_BLOCK, 2 * config.num_kv_heads, config.head_dim)
        self._graphs: dict[int, RecordedFunction] = {}
        self.cache = [self.norm.gain.new_zeros(shape) for _ in self.layers]

    def with_empty_cache(self) -> "TemporalStep":
        """Return a step that shares the weights and has an empty cache of its own."""
        other = copy.copy(self)
        other.clear(len(self.cache[0]))
        return other

    @property
    def capacity(self) -> int:
        """Positions that the cache has room for."""
        return self.cache[0].shape[1]

    @property
    def cache_bytes(self) -> int:
        """Memory of the cache."""
        return sum(layer.nbytes for layer in self.cache)

    def prefill(
        self,
        slot: int,
        rows: Int[Tensor, "t c"],
        positions: Float[Tensor, " t"] | None,
        depth: int,
        speaker: Float[Tensor, "1 e"] | None = None,
    ) -> Float[Tensor, " d"]:
        """Read a prompt into a slot of the cache.

        Args:
            slot: Index of the slot.
            rows: Rows [t, 1 + K] of the prompt.
            positions: Rotary positions [t]; None: their index.
            depth: How many codebooks are read.
            speaker: Voice vector [1, e]; None adds nothing.

        Returns:
            The state [d] after the last row.
        """
        cache = DynamicCache()
        batched = None if positions is None else positions[None]
        embedded = self.model.embed(rows[None], depth, speaker)
        state = self.model.states(embedded, None, cache, batched)[0, -1]
        self.reserve(len(rows))
        for stored, layer in zip(self.cache, cast("list[DynamicLayer]", cache.layers), strict=True):
            assert layer.keys is not None and layer.values is not None
            stored[slot, : len(rows)] = torch.cat([layer.keys, layer.values], 1)[0].transpose(0, 1)
        return state

    def reserve(self, positions: int) -> None:
        """Grow the cache, if need be, so that sequences of so many positions fit."""
        if positions > self.capacity:
            self._graphs.clear()
            size = -(-positions // CACHE_BLOCK) * CACHE_BLOCK
            for i, old in enumerate(self.cache):
                self.cache[i] = old.new_zeros((old.shape[0], size, *old.shape[2:]))
                self.cache[i][:, : old.shape[1]] = old

    def move(self, source: int, target: int) -> None:
        """Copy slot `source` of the cache to slot `target`."""
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
        """Read one more row of the first n sequences.

        Args:
            x: Embedded rows [n, d].
            positions: Rotary positions [n].
            lengths: How many rows each sequence has already.
            static: Whether to attend to the whole cache, masked, so that shapes change only where it grows.
                On CUDA that is a graph, and the result is overwritten by the next call.

        Returns:
            States [n, d] after the rows.
        """
        length, mask, index = max(lengths) + 1, None, lengths[0]
        if static or any(other != index for other in lengths):
            length, ends = self.capacity if static else length, torch.tensor(lengths).to(x.device)
            mask = (torch.arange(length, device=x.device) <= ends[:, None])[:, None, None]
            index = torch.arange(len(lengths), device=x.device) * self.capacity + ends
        inputs = RowInputs(x=x, positions=positions, cache_index=index, cache_length=length, mask=mask)
        if not (static and x.is_cuda):
            return self._compute(inputs)
        if len(x) not in self._graphs:
            self._graphs[len(x)] = RecordedFunction(self._compute, inputs)
        return self._graphs[len(x)](inputs)

    def _compute(self, inputs: RowInputs) -> Float[Tensor, "n d"]:
        x, count = inputs.x, inputs.x.shape[0]
        angle = inputs.positions[:, None, None] * self.frequency
        cosine, sine = angle.cos().to(x.dtype), (angle.sin() * self.sign).to(x.dtype)
        for layer, gain, cache in zip(self.layers, self.qk_gains, self.cache, strict=True):
            qkv = layer.qkv(layer.norm(x)).view(count, -1, layer.head_dim)
            qk = qkv[:, : -layer.kv_heads]
            length = torch.linalg.vector_norm(qk, dim=-1, keepdim=True, dtype=torch.float32)
            qk = (qk / length.hypot_(layer.floor)).to(x.dtype) * gain
            # Half-split rotation; the sine is negative where its partner is subtracted.
            rotated = torch.addcmul(qk * cosine, qk.roll(layer.head_dim // 2, -1), sine)
            kv = torch.cat([rotated[:, layer.heads :], qkv[:, -layer.kv_heads :]], 1)
            if isinstance(inputs.cache_index, int):
                cache[:count, inputs.cache_index] = kv
            else:
                cache.flatten(0, 1).index_copy_(0, inputs.cache_index, kv)
            keys, values = cache[:count, : inputs.cache_length].transpose(1, 2).chunk(2, 1)
            q = rotated[:, : layer.heads].view(count, layer.kv_heads, -1, layer.head_dim)
            x = layer.finish(x, F.scaled_dot_product_attention(q, keys, values, attn_mask=inputs.mask))
        return self.norm(x) * self.scale
