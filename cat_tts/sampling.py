"""Keyed sampling: what is drawn depends on (seed, frame, layer) and on nothing else.

Gumbel-max: the arg-max of logits plus Gumbel noise is a draw from their softmax. The noise comes from an
integer hash of its place, so a take is the same alone or in any batch, streamed or not, and its first k
codebooks see the same noise at every depth of k or more. CPU and CUDA agree to rounding.

    options = SamplingOptions()
    noise = gumbel_noise(seeds, frame, layers=1 + depth, size=codebook_size)
    codes = choose(filtered_logits(logits, options, history), noise[:, layer])
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict
from torch import Tensor

SAMPLING_FILE = "sampling.json"
"""Holds the SamplingOptions of a model, where the defaults are not the best for it."""

_WORD = 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How far from the arg-max codes, and the decision to speak on or stop, are drawn."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    temperature: float = 1.0
    """0 takes the likeliest code and ignores the other options."""
    top_k: int = 50
    """Draw among this many likeliest codes; 0 among all."""
    top_p: float = 0.95
    """Draw among the fewest likeliest codes that together have this probability."""
    repetition_penalty: float = 1.0
    """Above 1, codes already in the history become less likely."""
    decision_temperature: float = 1.0
    """The temperature of the decision; see `decision`."""

    def __post_init__(self) -> None:
        for name in ("temperature", "decision_temperature"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(
                    f"{name}={value}: give 0 for the likeliest, or a positive number such as 1.0"
                )
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k}: give how many codes to draw among, or 0 for all")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: give a probability above 0 and up to 1 (1 turns it off)")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(
                f"repetition_penalty={self.repetition_penalty}: give a positive number (1 turns it off)"
            )

    def decision(self) -> "SamplingOptions":
        """The options for the text channel: its own temperature and, as published, top-k 50 only."""
        return replace(
            self, temperature=self.decision_temperature, top_k=50, top_p=1.0, repetition_penalty=1.0
        )


def gumbel_noise(
    seeds: Int[Tensor, " b"], frame: int | Int[Tensor, " b"], layers: int, size: int
) -> Float[Tensor, "b layers size"]:
    """Standard Gumbel noise of every take at its frame; fewer layers or a smaller size give a prefix."""
    layer = torch.arange(layers, device=seeds.device)
    index = torch.arange(size, device=seeds.device)
    key = _mix(_mix(seeds & _WORD) ^ (seeds >> 32 & _WORD))
    key = _mix(key ^ (frame & _WORD))
    key = _mix(key[:, None] ^ layer)[..., None]
    # Two rounds, or keys that differ in low bits alone would draw one another's values in another order.
    word = _mix(_mix(key ^ index) ^ key)
    # 23 bits and a half: exact in float32, and never 0 or 1.
    uniform = ((word >> 9).float() + 0.5) * 2.0**-23
    return -(-uniform.log()).log()


def filtered_logits(
    logits: Float[Tensor, "b v"], options: SamplingOptions, history: Int[Tensor, "b n"] | None = None
) -> Float[Tensor, "b v"]:
    """Float32 logits whose softmax is what `options` ask to draw from; -inf marks what cannot be drawn.

    The published order: penalty, temperature, top-k, top-p. Every code of `history` is penalised once,
    however often it is there. Entries outside the vocabulary are no codes: -1 can fill up shorter histories.
    Temperature 0 leaves only the likeliest, without penalty.
    """
    logits = logits.float()
    if options.temperature == 0:
        best = logits.argmax(-1, keepdim=True)
        return torch.full_like(logits, -math.inf).scatter(-1, best, logits.gather(-1, best))
    if history is not None and options.repetition_penalty != 1:
        logits = _penalise(logits, history, options.repetition_penalty)
    values, order = (logits / options.temperature).sort(dim=-1, stable=True)
    if 0 < options.top_k < values.shape[-1]:
        values = values.masked_fill(values < values[:, -options.top_k, None], -math.inf)
    if options.top_p < 1:
        tail = values.softmax(-1).cumsum(-1) <= 1 - options.top_p
        tail[:, -1] = False
        values = values.masked_fill(tail, -math.inf)
    return torch.empty_like(values).scatter_(-1, order, values)


def choose(logits: Float[Tensor, "b v"], noise: Float[Tensor, "b v"]) -> Int[Tensor, " b"]:
    """One draw from the softmax of `logits` (filtered first, as a rule), made by `noise`."""
    return (logits + noise).argmax(-1)


def _penalise(
    logits: Float[Tensor, "b v"], history: Int[Tensor, "b n"], penalty: float
) -> Float[Tensor, "b v"]:
    """Divide positive logits of codes in the history by `penalty`, multiply negative ones by it."""
    size = logits.shape[-1]
    seen = torch.zeros((len(logits), size + 1), dtype=torch.bool, device=logits.device)
    seen.scatter_(-1, history.masked_fill((history < 0) | (history > size), size), True)
    return torch.where(seen[:, :size], torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def _mix(word: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """A one-to-one scramble of 32-bit words held in int64.

    Shift, xor, multiply, with constants found by a public search for low bias (Wellons, "Prospecting for hash
    functions"). Both are below 2^31, so no product leaves int64.
    """
    word = ((word ^ (word >> 16)) * 0x21F0AAAD) & _WORD
    word = ((word ^ (word >> 15)) * 0x735A2D97) & _WORD
    return word ^ (word >> 15)
