"""Keyed sampling: what is drawn depends on (seed, frame, layer) and on nothing else.

Gumbel-max: the arg-max of logits plus Gumbel noise is a draw from their softmax. The noise comes from an
integer hash of its place, so a sequence is the same alone or in any batch, streamed or not, and its first k
codebooks see the same noise at every depth of k or more. CPU and CUDA agree to rounding.

    options = SamplingOptions()
    noise = gumbel_noise(seeds, frame, layers=1 + depth, size=codebook_size)
    params = BatchedSamplingParams.from_options([options] * len(seeds), codebook_size, logits.device)
    codes = sample(filtered_logits(logits, params, seen), noise[:, layer])
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from torch import Tensor

SAMPLING_FILE = "sampling.json"
"""Holds the SamplingOptions of a model, where the defaults are not the best for it."""


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How codes, and the decision to continue or to stop, are sampled."""

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
    """Scale of classifier-free guidance: logits are moved so many times as far from the unconditional ones,
    those of the model without the text. Other values than 1 double the work of a frame, and need a model that
    was trained without text on some sequences (`training.tts.batches`, `text_dropout`). The decision to
    continue or to stop is not guided. Ours, not the paper's."""

    def __post_init__(self) -> None:
        for option in fields(self):
            value, whole = getattr(self, option.name), option.type is int
            if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
                shown = " ".join(repr(value).split())[:80]
                raise ValueError(f"{option.name}={shown}: give a {'whole ' if whole else ''}number")
            object.__setattr__(self, option.name, (int if whole else float)(getattr(self, option.name)))
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
        """Return the options for the text channel: its own temperature and, as published, top-k 50 only."""
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
    """Compute standard Gumbel noise for each sequence at its frame.

    Fewer layers or a smaller size give a prefix of the same noise.

    Args:
        seeds: Seeds [b], int64.
        frame: Index of the frame, one for all or [b].
        layers: How many draws a frame has: the decision, then its codes.
        size: How many values a draw has to choose among.

    Returns:
        Noise [b, layers, size], float32, a function of (seed, frame, layer, index) alone.
    """
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
class BatchedSamplingParams:
    """Sampling options of a whole batch as columns, so that one operator serves all sequences."""

    temperature: Float[Tensor, "b 1"]
    repetition_penalty: Float[Tensor, "b 1"]
    one_minus_top_p: Float[Tensor, "b 1"]
    top_k: Int[Tensor, "b 1"]
    noise_scale: Float[Tensor, "b 1"]
    """Factor of the noise: 0 for greedy sequences, 1 for others."""
    guidance: Float[Tensor, "b 1"]
    max_top_k: int
    any_temperature: bool
    any_penalty: bool
    any_top_p: bool
    """Whether any sequence has a temperature, a penalty, a top_p."""

    @classmethod
    def from_options(
        cls, options: Sequence[SamplingOptions], size: int, device: torch.device
    ) -> "BatchedSamplingParams":
        """Batch the options of sequences.

        Args:
            options: Options of each sequence.
            size: How many codes there are to choose among.
            device: Where the columns are put.

        Returns:
            Columns [b, 1], and what is common to all sequences.
        """
        table = [_as_numbers(each, size) for each in options]
        columns = torch.tensor(table, dtype=torch.float32).to(device).split(1, -1)
        temperature, penalty, one_minus_top_p, top_k, noise_scale, guidance = columns
        return cls(
            temperature=temperature,
            repetition_penalty=penalty,
            one_minus_top_p=one_minus_top_p,
            top_k=top_k.long(),
            noise_scale=noise_scale,
            guidance=guidance,
            max_top_k=max(int(row[3]) for row in table),
            any_temperature=any(row[4] for row in table),
            any_penalty=any(row[1] != 1 for row in table),
            any_top_p=any(row[2] > 0 for row in table),
        )

    @property
    def static_options(self) -> tuple:
        """All that decides which operators run, and so which CUDA graph fits."""
        return self.max_top_k, self.any_temperature, self.any_penalty, self.any_top_p

    def first(self, count: int) -> "BatchedSamplingParams":
        """Return the options of the first `count` sequences."""
        names = ("temperature", "repetition_penalty", "one_minus_top_p", "top_k", "noise_scale", "guidance")
        return replace(self, **{name: getattr(self, name)[:count] for name in names})


def filtered_logits(
    logits: Float[Tensor, "b v"], params: BatchedSamplingParams, used_codes: Bool[Tensor, "b v"] | None = None
) -> Float[Tensor, "b v"]:
    """Filter logits so that their softmax is the distribution that the options describe.

    The published order: repetition penalty, temperature, top-k, top-p. A code that is as likely as the least
    likely one that passes passes too. Temperature 0 leaves only the likeliest, without a penalty.

    Args:
        logits: Logits [b, v].
        params: Options of the b sequences.
        used_codes: Mask [b, v] of the codes that a sequence has had already; None: no penalty.

    Returns:
        Logits [b, v], float32, with -inf where a code cannot be drawn.
    """
    logits = logits.float()
    if used_codes is not None and params.any_penalty:
        penalty = torch.where(used_codes, params.repetition_penalty, 1.0)
        logits = torch.where(logits < 0, logits * penalty, logits / penalty)
    logits = logits / params.temperature
    top = logits.topk(params.max_top_k, -1).values
    least = top.gather(-1, params.top_k - 1)
    if params.any_top_p:
        # Ascending, as published: summed in another order, a sum next to the bound could fall beyond it.
        rising = top.masked_fill(top < least, -math.inf).flip(-1)
        dropped = rising.softmax(-1).cumsum(-1) <= params.one_minus_top_p
        dropped[:, -1] = False
        least = rising.masked_fill_(dropped, math.inf).amin(-1, keepdim=True)
    return logits.masked_fill_(logits < least, -math.inf)


def apply_guidance(
    conditional: Float[Tensor, "b v"], unconditional: Float[Tensor, "b v"], guidance: Float[Tensor, "b 1"]
) -> Float[Tensor, "b v"]:
    """Apply classifier-free guidance.

    Args:
        conditional: Logits [b, v] with the text.
        unconditional: Logits [b, v] without it.
        guidance: Scale [b, 1].

    Returns:
        Logits [b, v], float32, `guidance` times as far from the unconditional ones as the conditional are.
    """
    return torch.lerp(unconditional.float(), conditional.float(), guidance)


def sample(logits: Float[Tensor, "b v"], noise: Float[Tensor, "b v"]) -> Int[Tensor, " b"]:
    """Draw from the softmax of logits by the Gumbel-max rule.

    Args:
        logits: Logits [b, v], as a rule filtered.
        noise: Gumbel noise [b, v].

    Returns:
        Indices [b].
    """
    return (logits + noise).argmax(-1)


def _as_numbers(options: SamplingOptions, size: int) -> tuple[float, float, float, int, float, float]:
    """Temperature, penalty, 1 - top-p, top-k, noise scale, guidance; no case needs another operator."""
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
