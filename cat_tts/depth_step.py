"""The Depth Transformer position by position: the decision and the codes of one frame, for many takes.

Nothing here has a shape that depends on the data, so that a whole frame can be one CUDA graph.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cat_tts.fused import Layer, Product, rms_norm
from cat_tts.model import CatTTS
from cat_tts.sampling import Knobs, choose, filtered_logits


class DepthStep:
    """Makes frames of up to `rows` takes at a time.

    What a position reads is a function of the code before it: the incoming adapter is applied to the tables
    of embeddings once, here, and not in every frame.
    """

    def __init__(self, model: CatTTS, rows: int, *, any_text: bool = False) -> None:
        config, shape = model.config, model.config.depth
        self.model, self.any_text, self.tokens = model, any_text and config.full_text_head, config.tokens
        self.layers = [
            Layer(layer, shape.num_heads, shape.num_kv_heads, shape.head_dim) for layer in model.depth.layers
        ]
        self.gain = model.depth.norm.weight.detach()
        self.adapter_in = model.depth.adapter_in
        self.text = torch.tensor([config.tokens.slot, config.tokens.audio_end], device=self.gain.device)
        with torch.no_grad():
            self.tables = [self.adapter_in(table.weight[:-1]) for table in model.code_embeddings]
            self.text_table = self.adapter_in(model.text_embedding(self.text))
        decision = model.depth.decision_head.weight.detach()
        if config.full_text_head and not self.any_text:
            decision = decision[self.text]
        heads = [decision, *(head.weight.detach()[:-1] for head in model.depth.code_heads)]
        self.heads = [Product(head) for head in heads]
        positions = 1 + config.num_codebooks
        cache = (rows, positions, 2 * shape.num_kv_heads, shape.head_dim)
        self.cache = [self.gain.new_zeros(cache) for _ in self.layers]

    @property
    def cache_bytes(self) -> int:
        return sum(layer.nbytes for layer in self.cache)

    def __call__(
        self,
        states: Float[Tensor, "n d"],
        counts: Sequence[int],
        knobs: tuple[Knobs, Knobs],
        noise: Float[Tensor, "n l v"] | None,
        seen: Bool[Tensor, "n k v"] | None,
        going: Bool[Tensor, " n"],
        forced: Int[Tensor, "n k"] | None,
    ) -> Int[Tensor, "n e"]:
        """Text id and codes of the next frame.

        Code k is made for the first `counts[k]` takes alone, so the deepest come first. Of `knobs` the first
        are those of the codes, the second those of the decision; `going` takes may not stop. Where `forced`
        holds a code, it is taken.
        """
        hidden = self._position(self.adapter_in(states), 0)
        text, fed = self._decide(hidden, knobs[1], None if noise is None else noise[:, 0], going)
        row = states.new_zeros((len(states), 1 + len(counts)), dtype=torch.long)
        row[:, 0] = text
        for k, count in enumerate(counts):
            logits = self._logits(self._position(fed[:count], k + 1), k + 1)
            code = self._draw(
                logits,
                knobs[0] if count == len(states) else knobs[0].first(count),
                None if noise is None else noise[:count, k + 1],
                None if seen is None else seen[:count, k],
            )
            if forced is not None:
                code = torch.where(forced[:count, k] < 0, code, forced[:count, k])
            row[:count, k + 1] = code
            if k + 1 < len(counts):
                fed = nn.functional.embedding(code, self.tables[k])
        return row

    def _position(self, x: Float[Tensor, "n d"], position: int) -> Float[Tensor, "n d"]:
        for layer, cache in zip(self.layers, self.cache, strict=True):
            x = layer(x, cache, position, position + 1)
        return rms_norm(x, self.gain)

    def _logits(self, hidden: Float[Tensor, "n d"], channel: int) -> Float[Tensor, "n v"]:
        depth = self.model.depth
        if len(depth.adapters):
            hidden = depth.head_norms[channel](depth.adapters[channel](hidden))
        return self.heads[channel](hidden)

    def _decide(
        self, hidden: Tensor, knobs: Knobs, noise: Tensor | None, going: Bool[Tensor, " n"]
    ) -> tuple[Int[Tensor, " n"], Float[Tensor, "n d"]]:
        """The text id of the next row, slot to go on or audio_end to stop, and what code 1 reads of it."""
        logits = self._logits(hidden, 0)
        if self.any_text:
            text = logits.argmax(-1)
            return text, self.adapter_in(self.model.text_embedding(text))
        stop = self._draw(logits, knobs, noise, None).masked_fill(going, 0)
        return self.text[stop], self.text_table[stop]

    @staticmethod
    def _draw(
        logits: Float[Tensor, "n v"], knobs: Knobs, noise: Tensor | None, seen: Tensor | None
    ) -> Int[Tensor, " n"]:
        if noise is None or not knobs.sampled:
            return logits.argmax(-1)
        return choose(filtered_logits(logits, knobs, seen), noise[:, : logits.shape[1]])
