"""Keyed sampling: what is drawn depends on (seed, frame, layer) and on nothing else.

Gumbel-max: the arg-max of logits plus Gumbel noise is a draw from their softmax. The noise comes from an
integer hash of its place, so a take is the same alone or in any batch, streamed or not, and its first k
codebooks see the same noise at every depth of k or more. CPU and CUDA agree to rounding.

    options = SamplingOptions()
    noise = gumbel_noise(seeds, frame, layers=1 + depth, size=codebook_size)
    knobs = Knobs.of([options] * len(seeds), codebook_size, logits.device)
    codes = choose(filtered_logits(logits, knobs, seen), noise[:, layer])
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from torch import Tensor

SAMPLING_FILE = "sampling.json"
"""Holds the SamplingOptions of a model, where the defaults are not the best for it."""


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
    guidance: float = 1.0
    """How much more the text counts: logits are carried so many times as far from those of a model that is
    not told the text (classifier-free guidance). Other values than 1 double the rows of a frame, and want a
    model that learnt some sequences without their text (`training.tts.batches`, `untold`). The decision to
    speak on or stop is not guided. Ours, not the paper's."""

    def __post_init__(self) -> None:
        for name in ("temperature", "decision_temperature"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(
                    f"{name}={value}: give 0 for the likeliest, or a positive number such as 1.0"
                )
        if not 1 <= self.guidance < math.inf:
            raise ValueError(f"guidance={self.guidance}: give 1 for none, or a larger number such as 1.5")
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
            self,
            temperature=self.decision_temperature,
            top_k=50,
            top_p=1.0,
            repetition_penalty=1.0,
            guidance=1.0,
        )


def gumbel_noise(
    seeds: Int[Tensor, " b"], frame: int | Int[Tensor, " b"], layers: int, size: int
) -> Float[Tensor, "b layers size"]:
    """Standard Gumbel noise of every take at its frame; fewer layers or a smaller size give a prefix."""
    layer = torch.arange(layers, device=seeds.device, dtype=torch.int32)
    index = torch.arange(size, device=seeds.device, dtype=torch.int32)
    key = _mix(_mix(_low_word(seeds)) ^ _low_word(seeds >> 32))
    key = _mix(key ^ _low_word(torch.as_tensor(frame, device=seeds.device)))
    key = _mix(key[:, None] ^ layer)[..., None]
    # Two rounds, or keys that differ in low bits alone would draw one another's values in another order.
    word = _mix(_mix(key ^ index) ^ key)
    # 23 bits and a half: exact in float32, and never 0 or 1.
    uniform = (word >> 9).bitwise_and_(0x7FFFFF).float().add_(0.5).mul_(2.0**-23)
    return uniform.log_().neg_().log_().neg_()


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """The options of every take of a batch as columns, so that one operator serves all."""

    temperature: Float[Tensor, "b 1"]
    penalty: Float[Tensor, "b 1"]
    tail: Float[Tensor, "b 1"]
    """1 - top_p."""
    top_k: Int[Tensor, "b 1"]
    chance: Float[Tensor, "b 1"]
    """0 for takes without chance, 1 for others: the factor of their noise."""
    guidance: Float[Tensor, "b 1"]
    width: int
    """The largest top_k."""
    sampled: bool
    penalised: bool
    nucleus: bool
    """Whether any take has a temperature, a penalty, a top_p."""

    @classmethod
    def of(cls, options: Sequence[SamplingOptions], size: int, device: torch.device) -> "Knobs":
        """The knobs of takes that draw among `size` codes."""
        table = [_numbers(one, size) for one in options]
        columns = torch.tensor(table, dtype=torch.float32).to(device).split(1, -1)
        temperature, penalty, tail, top_k, chance, guidance = columns
        return cls(
            temperature=temperature,
            penalty=penalty,
            tail=tail,
            top_k=top_k.long(),
            chance=chance,
            guidance=guidance,
            width=max(int(row[3]) for row in table),
            sampled=any(row[4] for row in table),
            penalised=any(row[1] != 1 for row in table),
            nucleus=any(row[2] > 0 for row in table),
        )

    @property
    def kind(self) -> tuple:
        """All that decides which operators serve these takes."""
        return self.width, self.sampled, self.penalised, self.nucleus

    def first(self, rows: int) -> "Knobs":
        """Those of the first takes alone."""
        names = ("temperature", "penalty", "tail", "top_k", "chance", "guidance")
        return replace(self, **{name: getattr(self, name)[:rows] for name in names})


def filtered_logits(
    logits: Float[Tensor, "b v"], knobs: Knobs, seen: Bool[Tensor, "b v"] | None = None
) -> Float[Tensor, "b v"]:
    """Float32 logits whose softmax is what the options ask to draw from; -inf marks what cannot be drawn.

    The published order: penalty on the codes that were `seen`, temperature, top-k, top-p. What is as likely
    as the least likely code that is kept is kept too. Temperature 0 leaves only the likeliest, unpenalised.
    """
    logits = logits.float()
    if seen is not None and knobs.penalised:
        penalty = torch.where(seen, knobs.penalty, 1.0)
        logits = torch.where(logits < 0, logits * penalty, logits / penalty)
    logits = logits / knobs.temperature
    top = logits.topk(knobs.width, -1).values
    least = top.gather(-1, knobs.top_k - 1)
    if knobs.nucleus:
        # Ascending, as published: summed in another order, a sum next to the bound could fall beyond it.
        rising = top.masked_fill(top < least, -math.inf).flip(-1)
        tail = rising.softmax(-1).cumsum(-1) <= knobs.tail
        tail[:, -1] = False
        least = rising.masked_fill_(tail, math.inf).amin(-1, keepdim=True)
    return logits.masked_fill_(logits < least, -math.inf)


def guided(
    told: Float[Tensor, "b v"], untold: Float[Tensor, "b v"], guidance: Float[Tensor, "b 1"]
) -> Float[Tensor, "b v"]:
    """Float32 logits `guidance` times as far from `untold` as those of `told` are."""
    return torch.lerp(untold.float(), told.float(), guidance)


def choose(logits: Float[Tensor, "b v"], noise: Float[Tensor, "b v"]) -> Int[Tensor, " b"]:
    """One draw from the softmax of `logits` (filtered first, as a rule), made by `noise`."""
    return (logits + noise).argmax(-1)


def _numbers(options: SamplingOptions, size: int) -> tuple[float, float, float, int, float, float]:
    """Temperature, penalty, tail, top-k, chance and guidance, such that no case needs another operator."""
    if options.temperature == 0:
        return 1.0, 1.0, 0.0, 1, 0.0, options.guidance
    top_k = options.top_k if 0 < options.top_k < size else size
    return options.temperature, options.repetition_penalty, 1 - options.top_p, top_k, 1.0, options.guidance


def _low_word(value: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """The low 32 bits of int64, as int32."""
    return value.to(torch.int64).bitwise_and(0xFFFFFFFF).to(torch.int32)


def _mix(word: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """A one-to-one scramble of 32-bit words, held in int32, whose products wrap around.

    Shift, xor, multiply, with constants found by a public search for low bias (Wellons, "Prospecting for hash
    functions"). Shifts of int32 bring in the sign, which is masked away.
    """
    word = ((word >> 16).bitwise_and_(0xFFFF).bitwise_xor_(word)).mul_(0x21F0AAAD)
    word = ((word >> 15).bitwise_and_(0x1FFFF).bitwise_xor_(word)).mul_(0x735A2D97)
    return (word >> 15).bitwise_and_(0x1FFFF).bitwise_xor_(word)
