"""Windowed causal attention with one door, and rotary positions."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float
from torch import Tensor

try:
    from flash_attn import flash_attn_func  # pyright: ignore[reportMissingImports]
except ImportError:
    flash_attn_func = None

CPU_BLOCK, SMALLEST_BLOCK = 128, 64
"""Queries attended at once on a CPU, and at least so many elsewhere, where large pieces are faster."""
LONG = 32
"""Queries from which on training in bfloat16 on a CPU does without SDPA."""


@dataclass(frozen=True)
class Block:
    """Neighbouring queries, the keys that any of them sees, and who of them sees which (None: all before)."""

    queries: slice
    keys: slice
    mask: Float[Tensor, "*b n m"] | None


@dataclass(frozen=True)
class Sight:
    """Which keys the queries of one call see: made once, used by every layer of a stage."""

    blocks: list[Block]
    rows_differ: bool


def window_mask(queries: int, keys: int, window: int, device: torch.device) -> Bool[Tensor, "queries keys"]:
    """True where attended. The last query is aligned with the last key; `window` counts the query itself."""
    i = torch.arange(keys - queries, keys, device=device)[:, None]
    j = torch.arange(keys, device=device)
    return (j <= i) & (j > i - window)


def sight(
    queries: int, keys: int, window: int, like: Tensor, hidden: Bool[Tensor, "b m"] | None = None
) -> Sight:
    """Each query sees the last `window` keys, itself included, but none that is hidden from its row.

    Queries come in blocks, each with the keys that it can see: the cost of attention grows with
    queries x window, never with queries x keys, and all blocks share one mask.
    """
    block = CPU_BLOCK if like.device.type == "cpu" else max(window, SMALLEST_BLOCK)
    if hidden is None and (queries == keys or queries == 1) and keys <= window:
        return Sight([Block(slice(0, queries), slice(0, keys), None)], rows_differ=False)
    blocks, past = [], keys - queries
    longest = min(block, queries)
    seen = window_mask(longest, longest + window - 1, window, like.device)
    band = like.new_zeros(seen.shape).masked_fill(~seen, -torch.inf)
    for start in range(0, queries, block):
        stop = min(start + block, queries)
        first = max(0, past + start - window + 1)
        behind = past + start - first
        mask = band[: stop - start, window - 1 - behind : window - 1 + stop - start]
        span = slice(first, past + stop)
        if hidden is not None:
            mask = mask.masked_fill(hidden[:, None, None, span], -torch.inf)
        blocks.append(Block(slice(start, stop), span, mask))
    return Sight(blocks, rows_differ=hidden is not None)


def attend(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m d"],
    window: int,
    seen: Sight | None = None,
) -> Float[Tensor, "b h n d"]:
    """Causal attention of each query to the last `window` keys, itself included; query n-1 stands at key m-1.

    FlashAttention 2 when it is installed and fits, else SDPA over blocks of queries. `seen` is
    `sight(n, m, window, q)` made beforehand, or one that hides more. What is trained in bfloat16 on a CPU is
    attended there without SDPA, whose backward pass takes up to seven times as long as in float32.
    """
    if q.device.type == "cpu" and q.requires_grad and torch.is_autocast_enabled("cpu"):
        return _attend_in_training(q, k, v, window, seen)
    fits = q.is_cuda and q.dtype in (torch.float16, torch.bfloat16) and not (seen and seen.rows_differ)
    if flash_attn_func is not None and fits:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return flash_attn_func(q, k, v, causal=True, window_size=(window - 1, 0)).transpose(1, 2)
    seen, grouped = seen or sight(q.shape[2], k.shape[2], window, q), q.shape[1] != k.shape[1]
    parts = []
    for block in seen.blocks:
        parts.append(
            F.scaled_dot_product_attention(
                _cut(q, block.queries),
                _cut(k, block.keys),
                _cut(v, block.keys),
                attn_mask=block.mask,
                is_causal=block.mask is None and q.shape[2] > 1,
                enable_gqa=grouped,
            )
        )
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


def _attend_in_training(q: Tensor, k: Tensor, v: Tensor, window: int, seen: Sight | None) -> Tensor:
    """Long sequences by plain products in bfloat16; short ones, of which there are many of all sizes, by SDPA
    in float32, which needs no kernel made for each size."""
    if q.shape[2] < LONG and not (seen and seen.rows_differ):
        with torch.autocast("cpu", enabled=False):
            return attend(q.float(), k.float(), v.float(), window).to(q.dtype)
    q, parts = q * q.shape[-1] ** -0.5, []  # the products are autocast's
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    for block in (seen or sight(q.shape[2], k.shape[2], window, q)).blocks:
        scores = _cut(q, block.queries) @ _cut(k, block.keys).mT
        if block.mask is None:
            queries, keys = scores.shape[-2:]
            scores = scores.masked_fill(~window_mask(queries, keys, window, q.device), -torch.inf)
        else:
            scores = scores + block.mask
        parts.append(scores.softmax(-1) @ _cut(v, block.keys))
    return torch.cat(parts, 2)


def _cut(x: Tensor, steps: slice) -> Tensor:
    return x if steps.stop - steps.start == x.shape[2] else x[:, :, steps]


def frequencies(head_dim: int, period: float, device: torch.device) -> Float[Tensor, " half"]:
    """Radians a step by which each pair of features turns, in float64."""
    exponent = torch.arange(0, head_dim, 2, device=device, dtype=torch.float64) / head_dim
    return torch.pow(period, -exponent)


def turns(first: int, steps: int, frequencies: Float[Tensor, " half"]) -> Complex[Tensor, "t half"]:
    """Cosine + i sine of the angles at the positions first .. first+steps-1.

    Angles are float64: a stream's positions reach millions, where float32 knows no fraction of a turn.
    """
    position = torch.arange(first, first + steps, device=frequencies.device, dtype=frequencies.dtype)
    angle = position[:, None] * frequencies
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def rotate(x: Float[Tensor, "*shape d"], turns: Complex[Tensor, "..."]) -> Float[Tensor, "*shape d"]:
    """Rotary embedding of the interleaved pairs (2i, 2i+1), computed in float32."""
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).view(x.shape).to(x.dtype)


def rotate_projected(
    qkv: Float[Tensor, "b t three h d"], turns: Complex[Tensor, "t one one half"]
) -> Float[Tensor, "b t three h d"]:
    """Queries and keys rotated, values as they are; in place where no gradient is wanted."""
    if qkv.dtype == torch.float32 and not qkv.requires_grad:
        qkv.view(torch.complex64)[:, :, :2].mul_(turns)
        return qkv
    return torch.cat([rotate(qkv[:, :, :2], turns), qkv[:, :, 2:]], 2)
