"""The Depth Transformer position by position: the decision and the codes of one frame, for many takes.

No shape depends on the data, and nothing waits for a result: on CUDA a whole frame, noise and sampling
included, is one graph for each number of takes and depth.
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cat_tts.generation.cuda_graphs import Replay
from cat_tts.generation.fused_layers import Layer, Norm
from cat_tts.generation.int8_linear import Weights, product
from cat_tts.generation.sampling import Knobs, choose, filtered_logits, guided, gumbel_noise
from cat_tts.model.depth_transformer import SwiGLU
from cat_tts.model.tts import CatTTS


class Head:
    """Logits of one channel from the last hidden states, through its own adapter where the model has one."""

    def __init__(self, model: CatTTS, channel: int, weight: Tensor, norm: Norm, weights: Weights) -> None:
        depth = model.depth
        self.adapter = None
        if len(depth.adapters):
            adapter = cast("SwiGLU", depth.adapters[channel])
            both = torch.cat([adapter.gate_proj.weight, adapter.up_proj.weight])
            self.adapter = (
                product(norm.folded(both), weights),
                product(adapter.down_proj.weight.detach(), weights),
            )
            norm = Norm(cast("nn.RMSNorm", depth.head_norms[channel]).weight)
            self.norm = norm
        self.product = product(norm.folded(weight), weights)

    def __call__(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        if self.adapter is not None:
            gate, up = self.adapter[0](hidden).chunk(2, 1)
            hidden = self.norm(self.adapter[1](F.silu(gate) * up))
        return self.product(hidden)


class Slot:
    """Where one layer's cache holds a position of the first takes: views, made once and used every frame."""

    def __init__(self, layer: Layer, cache: Float[Tensor, "p b w h"], takes: int, position: int) -> None:
        heads, groups = layer.heads, layer.kv_heads
        slot = cache[position, :takes]
        self.qkv, self.qk = slot.flatten(1), slot[:, : heads + groups]
        self.q = slot[:, :heads].unflatten(1, (groups, -1))
        past = cache[: position + 1, :takes].permute(1, 2, 0, 3)
        self.keys, self.values = past[:, heads : heads + groups], past[:, heads + groups :]
        # Queries carry the keys' gain too, and what makes vectors of length 1 those of a norm.
        self.gain = layer.q_gain * layer.k_gain * layer.head_dim


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What the frames of a batch of takes are made from; the deepest take comes first."""

    states: Float[Tensor, "n d"]
    """Of the Temporal Transformer."""
    untold: Float[Tensor, "n d"] | None = None
    """The same where it was not told the text; None where no take is guided."""
    counts: tuple[int, ...]
    """Code k is made for the first `counts[k]` takes alone."""
    codes: Knobs
    decision: Knobs
    seeds: Int[Tensor, " n"]
    frames: Int[Tensor, " n"]
    """Which frame of its take it is: the noise depends on it."""
    going: Bool[Tensor, " n"]
    """Takes that may not stop here."""
    seen: Bool[Tensor, "n k v"]
    """Codes that a take has had, for the repetition penalty."""
    forced: Int[Tensor, "n k"] | None
    """Codes that are taken as given; -1 where the model chooses."""


class DepthStep:
    """Makes frames of up to `rows` takes at a time.

    What a position reads is a function of the code before it: the incoming adapter is applied to the tables
    of embeddings once, here, and not in every frame.
    """

    def __init__(
        self, model: CatTTS, rows: int, weights: Weights = "float", *, any_text: bool = False
    ) -> None:
        config, shape = model.config, model.config.depth
        self.model, self.any_text, self.tokens = model, any_text and config.full_text_head, config.tokens
        self.layers = [Layer(layer, shape, weights) for layer in model.depth.layers]
        self.norm, device = Norm(model.depth.norm.weight), model.depth.norm.weight.device
        self.adapter_in = model.depth.adapter_in
        self.text = torch.tensor([config.tokens.slot, config.tokens.audio_end], device=device)
        with torch.no_grad():
            self.tables = [self.adapter_in(table.weight[:-1]) for table in model.code_embeddings]
            self.text_table = self.adapter_in(model.text_embedding(self.text))
        decision = model.depth.decision_head.weight.detach()
        if config.full_text_head and not self.any_text:
            decision = decision[self.text]
        self.heads = [
            Head(model, channel, weight, self.norm, weights)
            for channel, weight in enumerate(
                [decision, *(head.weight[:-1] for head in model.depth.code_heads)]
            )
        ]
        self._graphs: dict[tuple, Replay] = {}
        self.reserve(rows)

    @property
    def cache_bytes(self) -> int:
        return sum(layer.nbytes for layer in self.cache)

    def reserve(self, rows: int) -> None:
        """Make room for so many takes; a guided one counts twice."""
        # Position first: the slot of a position is one piece, whatever the number of takes.
        config, shape = self.model.config, self.model.config.depth
        width = shape.num_heads + 2 * shape.num_kv_heads
        cache = (1 + config.num_codebooks, rows, width, shape.head_dim)
        self.cache = [self.norm.gain.new_zeros(cache) for _ in self.layers]
        self._slots: dict[tuple[int, int], list[Slot]] = {}
        self._graphs.clear()

    def __call__(self, frame: Frame, *, static: bool = False) -> Int[Tensor, "n e"]:
        """Text id and codes of the next frame.

        Where few shapes occur (`static`), each is a graph on CUDA, and the result lives until the next call.
        """
        if not (static and frame.states.is_cuda):
            return self._make(frame)
        absent = frame.forced is None, frame.untold is None
        key = (frame.counts, frame.codes.kind, frame.decision.kind, absent)
        if key not in self._graphs:
            self._graphs[key] = Replay(self._make, frame)
        return self._graphs[key](frame)

    def _make(self, frame: Frame) -> Int[Tensor, "n e"]:
        noise, takes, states, rows = self._noise(frame), len(frame.states), frame.states, 1
        if frame.untold is not None:  # behind each take its twin, so that the first takes are the first rows
            states, rows = torch.stack([states, frame.untold], 1).flatten(0, 1), 2
        hidden = self._position(self.adapter_in(states), 0)
        text, fed = self._decide(hidden[::rows], frame, noise)
        row = text.new_zeros((takes, 1 + len(frame.counts)))
        row[:, 0] = text
        for k, count in enumerate(frame.counts):
            fed = fed[:count].repeat_interleave(rows, 0) if rows > 1 else fed[:count]
            logits = self.heads[k + 1](self._position(fed, k + 1))
            knobs = frame.codes if count == takes else frame.codes.first(count)
            if rows > 1:
                logits = guided(logits[::2], logits[1::2], knobs.guidance)
            code = self._draw(logits, knobs, noise, k + 1, frame.seen[:count, k])
            if frame.forced is not None:
                given = frame.forced[:count, k]
                code = torch.where(given < 0, code, given)
            row[:count, k + 1] = code
            if k + 1 < len(frame.counts):
                fed = F.embedding(code, self.tables[k])
        return row

    def _noise(self, frame: Frame) -> Float[Tensor, "n l v"] | None:
        if not (frame.codes.sampled or frame.decision.sampled):
            return None
        size = self.model.config.codebook_size
        noise = gumbel_noise(frame.seeds, frame.frames, 1 + len(frame.counts), size)
        noise[:, 0] *= frame.decision.chance
        noise[:, 1:] *= frame.codes.chance[..., None]
        return noise

    def _position(self, x: Float[Tensor, "n d"], position: int) -> Float[Tensor, "n d"]:
        place = (len(x), position)
        slots = self._slots.get(place)
        if slots is None:
            slots = [Slot(layer, cache, *place) for layer, cache in zip(self.layers, self.cache, strict=True)]
            self._slots[place] = slots
        for layer, slot in zip(self.layers, slots, strict=True):
            layer.qkv(layer.norm(x), out=slot.qkv)
            length = torch.linalg.vector_norm(slot.qk, dim=-1, keepdim=True, dtype=torch.float32)
            slot.qk.div_(length.hypot_(layer.floor))
            slot.q.mul_(slot.gain)
            x = layer.finish(x, F.scaled_dot_product_attention(slot.q, slot.keys, slot.values))
        return self.norm(x)

    def _decide(
        self, hidden: Tensor, frame: Frame, noise: Tensor | None
    ) -> tuple[Int[Tensor, " n"], Float[Tensor, "n d"]]:
        """The text id of the next row, slot to go on or audio_end to stop, and what code 1 reads of it."""
        logits = self.heads[0](hidden)
        if self.any_text:
            text = logits.argmax(-1)
            return text, self.adapter_in(self.model.text_embedding(text))
        stop = self._draw(logits, frame.decision, noise, 0, None).masked_fill(frame.going, 0)
        return self.text[stop], self.text_table[stop]

    @staticmethod
    def _draw(
        logits: Float[Tensor, "n v"], knobs: Knobs, noise: Tensor | None, layer: int, seen: Tensor | None
    ) -> Int[Tensor, " n"]:
        if noise is None or not knobs.sampled:
            return logits.argmax(-1)
        rows, size = logits.shape
        return choose(filtered_logits(logits, knobs, seen), noise[:rows, layer, :size])
