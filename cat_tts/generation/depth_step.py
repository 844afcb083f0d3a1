"""The Depth Transformer position by position: the decision and the codes of one frame, for a batch.

No shape depends on the data, and nothing waits for a result: on CUDA a whole frame, noise and sampling
included, is one graph for each batch size and depth.
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cat_tts.generation.cuda_graphs import RecordedFunction
from cat_tts.generation.fused_layers import FusedLayer, Norm
from cat_tts.generation.int8_linear import Weights, make_product
from cat_tts.generation.sampling import (
    BatchedSamplingParams,
    apply_guidance,
    filtered_logits,
    gumbel_noise,
    sample,
)
from cat_tts.model.depth_transformer import SwiGLU
from cat_tts.model.tts import CatTTS


class Head:
    """Logits of one channel from the last hidden states, through its own adapter where the model has one."""

    def __init__(self, model: CatTTS, channel: int, weight: Tensor, norm: Norm, weights: Weights) -> None:
        depth = model.depth
        self.adapter = None
        if len(depth.adapters):
            adapter = cast("SwiGLU", depth.adapters[channel])
            gate_up = torch.cat([adapter.gate_proj.weight, adapter.up_proj.weight])
            self.adapter = (
                make_product(norm.folded(gate_up), weights),
                make_product(adapter.down_proj.weight.detach(), weights),
            )
            norm = Norm(cast("nn.RMSNorm", depth.head_norms[channel]).weight)
            self.norm = norm
        self.product = make_product(norm.folded(weight), weights)

    def __call__(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        """Return logits [n, v] for hidden states [n, d]."""
        if self.adapter is not None:
            gate, up = self.adapter[0](hidden).chunk(2, 1)
            hidden = self.norm(self.adapter[1](F.silu(gate) * up))
        return self.product(hidden)


class CacheViews:
    """Views of one layer's cache at a position of the first `count` sequences, built once for all frames."""

    def __init__(self, layer: FusedLayer, cache: Float[Tensor, "p b w h"], count: int, position: int) -> None:
        heads, groups = layer.heads, layer.kv_heads
        current = cache[position, :count]
        self.qkv, self.qk = current.flatten(1), current[:, : heads + groups]
        self.q = current[:, :heads].unflatten(1, (groups, -1))
        read = cache[: position + 1, :count].permute(1, 2, 0, 3)
        self.keys, self.values = read[:, heads : heads + groups], read[:, heads + groups :]
        # Queries carry the keys' gain too, and the factor from vectors of length 1 to those of an RMSNorm.
        self.gain = layer.q_gain * layer.k_gain * layer.head_dim


@dataclass(frozen=True, kw_only=True)
class FrameInputs:
    """Inputs of the next frame of each sequence of a batch; the deepest sequence comes first."""

    states: Float[Tensor, "n d"]
    """Temporal states."""
    unconditional: Float[Tensor, "n d"] | None = None
    """Temporal states without the text; None where no sequence is guided."""
    counts: tuple[int, ...]
    """Code k is generated for the first `counts[k]` sequences only."""
    codes: BatchedSamplingParams
    decision: BatchedSamplingParams
    seeds: Int[Tensor, " n"]
    frames: Int[Tensor, " n"]
    """Index of the frame in its sequence: the noise depends on it."""
    must_continue: Bool[Tensor, " n"]
    """Sequences that may not stop here."""
    used_codes: Bool[Tensor, "n k v"]
    """Codes that a sequence has had, for the repetition penalty."""
    forced: Int[Tensor, "n k"] | None
    """Codes that are decided already; -1 where the model chooses."""


class DepthStep:
    """Generates a frame of up to `slots` sequences at a time (paper C.1).

    What a position reads is a function of the code before it: the incoming adapter is applied to the
    embedding tables once, here, and not in every frame.
    """

    def __init__(
        self, model: CatTTS, slots: int, weights: Weights = "float", *, any_text: bool = False
    ) -> None:
        """Fuse the weights of a model; arguments as for `FrameDecoder`."""
        config, shape = model.config, model.config.depth
        self.model, self.any_text, self.tokens = model, any_text and config.full_text_head, config.tokens
        self.layers = [FusedLayer(layer, shape, weights) for layer in model.depth.layers]
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
        self._graphs: dict[tuple, RecordedFunction] = {}
        self.reserve(slots)

    @property
    def cache_bytes(self) -> int:
        """Memory of the cache."""
        return sum(layer.nbytes for layer in self.cache)

    def reserve(self, slots: int) -> None:
        """Allocate the cache for so many sequences; a guided one counts twice."""
        # Position first: a position is contiguous, whatever the batch size.
        config, shape = self.model.config, self.model.config.depth
        width = shape.num_heads + 2 * shape.num_kv_heads
        cache = (1 + config.num_codebooks, slots, width, shape.head_dim)
        self.cache = [self.norm.gain.new_zeros(cache) for _ in self.layers]
        self._views: dict[tuple[int, int], list[CacheViews]] = {}
        self._graphs.clear()

    def __call__(self, frame: FrameInputs, *, static: bool = False) -> Int[Tensor, "n e"]:
        """Generate the next frame of each sequence.

        Args:
            frame: States and options of n sequences.
            static: Whether few shapes occur, so that each is worth a CUDA graph. The result is then
                overwritten by the next call.

        Returns:
            Text ids and codes [n, 1 + k].
        """
        if not (static and frame.states.is_cuda):
            return self._compute(frame)
        absent = frame.forced is None, frame.unconditional is None
        key = (frame.counts, frame.codes.static_options, frame.decision.static_options, absent)
        if key not in self._graphs:
            self._graphs[key] = RecordedFunction(self._compute, frame)
        return self._graphs[key](frame)

    def _compute(self, frame: FrameInputs) -> Int[Tensor, "n e"]:
        noise, batch, states, repeats = self._noise(frame), len(frame.states), frame.states, 1
        if frame.unconditional is not None:
            # Each sequence is followed by its unconditional one, so that the first sequences stay first.
            states, repeats = torch.stack([states, frame.unconditional], 1).flatten(0, 1), 2
        hidden = self._position(self.adapter_in(states), 0)
        text, inputs = self._decide(hidden[::repeats], frame, noise)
        result = text.new_zeros((batch, 1 + len(frame.counts)))
        result[:, 0] = text
        for k, count in enumerate(frame.counts):
            inputs = inputs[:count].repeat_interleave(repeats, 0) if repeats > 1 else inputs[:count]
            logits = self.heads[k + 1](self._position(inputs, k + 1))
            params = frame.codes if count == batch else frame.codes.first(count)
            if repeats > 1:
                logits = apply_guidance(logits[::2], logits[1::2], params.guidance)
            code = self._draw(logits, params, noise, k + 1, frame.used_codes[:count, k])
            if frame.forced is not None:
                forced = frame.forced[:count, k]
                code = torch.where(forced < 0, code, forced)
            result[:count, k + 1] = code
            if k + 1 < len(frame.counts):
                inputs = F.embedding(code, self.tables[k])
        return result

    def _noise(self, frame: FrameInputs) -> Float[Tensor, "n l v"] | None:
        if not (frame.codes.any_temperature or frame.decision.any_temperature):
            return None
        size = self.model.config.codebook_size
        noise = gumbel_noise(frame.seeds, frame.frames, 1 + len(frame.counts), size)
        noise[:, 0] *= frame.decision.noise_scale
        noise[:, 1:] *= frame.codes.noise_scale[..., None]
        return noise

    def _position(self, x: Float[Tensor, "n d"], position: int) -> Float[Tensor, "n d"]:
        key = (len(x), position)
        views = self._views.get(key)
        if views is None:
            pairs = zip(self.layers, self.cache, strict=True)
            views = self._views[key] = [CacheViews(layer, cache, *key) for layer, cache in pairs]
        for layer, view in zip(self.layers, views, strict=True):
            layer.qkv(layer.norm(x), out=view.qkv)
            length = torch.linalg.vector_norm(view.qk, dim=-1, keepdim=True, dtype=torch.float32)
            view.qk.div_(length.hypot_(layer.floor))
            view.q.mul_(view.gain)
            x = layer.finish(x, F.scaled_dot_product_attention(view.q, view.keys, view.values))
        return self.norm(x)

    def _decide(
        self, hidden: Tensor, frame: FrameInputs, noise: Tensor | None
    ) -> tuple[Int[Tensor, " n"], Float[Tensor, "n d"]]:
        """The text id of the next row (slot to continue, audio_end to stop), and what code 1 reads of it."""
        logits = self.heads[0](hidden)
        if self.any_text:
            text = logits.argmax(-1)
            return text, self.adapter_in(self.model.text_embedding(text))
        stop = self._draw(logits, frame.decision, noise, 0, None).masked_fill(frame.must_continue, 0)
        return self.text[stop], self.text_table[stop]

    @staticmethod
    def _draw(
        logits: Float[Tensor, "n v"],
        params: BatchedSamplingParams,
        noise: Tensor | None,
        layer: int,
        used_codes: Tensor | None,
    ) -> Int[Tensor, " n"]:
        if noise is None or not params.any_temperature:
            return logits.argmax(-1)
        count, size = logits.shape
        return sample(filtered_logits(logits, params, used_codes), noise[:count, layer, :size])
