"""Windowed causal attention behind one function, `attend`, and rotary position embedding."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float
from torch import Tensor

try:
    from flash_attn import flash_attn_func  # pyright: ignore[reportMissingImports]
except ImportError:
    flash_attn_func = None

CPU_BLOCK, MIN_BLOCK = 128, 64
"""Queries attended at once on a CPU, and the least number elsewhere, where large blocks are faster."""
PLAIN_ATTENTION_THRESHOLD = 32
"""Queries from which training in bfloat16 on a CPU uses plain products instead of SDPA."""


@dataclass(frozen=True)
class AttentionBlock:
    """Neighbouring queries, the keys that any of them attends to, and their additive mask."""

    queries: slice
    keys: slice
    mask: Float[Tensor, "*b n m"] | None
    """0 where a query attends to a key, -inf where not. None: all keys up to its own."""


@dataclass(frozen=True)
class AttentionMask:
    """Which keys the queries of one call attend to; built once and used by every layer of a stage."""

    blocks: list[AttentionBlock]
    rows_differ: bool
    """Whether a padding mask makes the signals of the batch differ."""


def window_mask(queries: int, keys: int, window: int, device: torch.device) -> Bool[Tensor, "queries keys"]:
    """Return a causal mask of a sliding window: True where a query attends to a key.

    Args:
        queries: Number of queries. The last query is aligned with the last key.
        keys: Number of keys.
        window: Keys that a query attends to, its own included.
        device: Where the mask is made.

    Returns:
        A mask of shape [queries, keys].
    """
    i = torch.arange(keys - queries, keys, device=device)[:, None]
    j = torch.arange(keys, device=device)
    return (j <= i) & (j > i - window)


def build_mask(
    queries: int, keys: int, window: int, like: Tensor, padding_mask: Bool[Tensor, "b m"] | None = None
) -> AttentionMask:
    """Build the mask by which each query attends to the last `window` keys, its own included.

    Queries come in blocks, each with the keys in its reach: the cost of attention grows with
    queries x window, never with queries x keys, and all blocks share one mask.

    Args:
        queries: Number of queries, n. The last query is aligned with the last key.
        keys: Number of keys, m.
        window: Keys that a query attends to, its own included.
        like: A tensor of the queries' dtype and device.
        padding_mask: [b, m], True for keys that no query of that signal attends to.

    Returns:
        The mask for `attend`.
    """
    block = CPU_BLOCK if like.device.type == "cpu" else max(window, MIN_BLOCK)
    if padding_mask is None and (queries == keys or queries == 1) and keys <= window:
        return AttentionMask([AttentionBlock(slice(0, queries), slice(0, keys), None)], rows_differ=False)
    blocks, history = [], keys - queries
    longest = min(block, queries)
    attended = window_mask(longest, longest + window - 1, window, like.device)
    band = like.new_zeros(attended.shape).masked_fill(~attended, -torch.inf)
    for start in range(0, queries, block):
        stop = min(start + block, queries)
        first = max(0, history + start - window + 1)
        behind = history + start - first
        mask = band[: stop - start, window - 1 - behind : window - 1 + stop - start]
        span = slice(first, history + stop)
        if padding_mask is not None:
            mask = mask.masked_fill(padding_mask[:, None, None, span], -torch.inf)
        blocks.append(AttentionBlock(slice(start, stop), span, mask))
    return AttentionMask(blocks, rows_differ=padding_mask is not None)


def attend(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m d"],
    window: int,
    mask: AttentionMask | None = None,
) -> Float[Tensor, "b h n d"]:
    """Compute causal attention of each query to the last `window` keys, its own included.

    This is FlashAttention 2 when it is installed and fits, else SDPA over blocks of queries. Training in
    bfloat16 on a CPU does without SDPA, whose backward pass takes up to seven times as long there as in
    float32.

    Args:
        q: Queries [b, h, n, d]; query n-1 stands at key m-1.
        k: Keys [b, g, m, d], where g divides h (grouped-query attention).
        v: Values [b, g, m, d].
        window: Keys that a query attends to.
        mask: `build_mask(n, m, window, q)` made beforehand, or one with a padding mask.

    Returns:
        The attended values [b, h, n, d].
    """
    if q.device.type == "cpu" and q.requires_grad and torch.is_autocast_enabled("cpu"):
        return _attend_in_training(q, k, v, window, mask)
    fits = q.is_cuda and q.dtype in (torch.float16, torch.bfloat16) and not (mask and mask.rows_differ)
    if flash_attn_func is not None and fits:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return flash_attn_func(q, k, v, causal=True, window_size=(window - 1, 0)).transpose(1, 2)
    mask, grouped = mask or build_mask(q.shape[2], k.shape[2], window, q), q.shape[1] != k.shape[1]
    parts = []
    for block in mask.blocks:
        parts.append(
            F.scaled_dot_product_attention(
                _slice_steps(q, block.queries),
                _slice_steps(k, block.keys),
                _slice_steps(v, block.keys),
                attn_mask=block.mask,
                is_causal=block.mask is None and q.shape[2] > 1,
                enable_gqa=grouped,
            )
        )
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


def _attend_in_training(q: Tensor, k: Tensor, v: Tensor, window: int, mask: AttentionMask | None) -> Tensor:
    """Attend by plain products in bfloat16 where sequences are long, else by SDPA in float32.

    Short sequences are many and of all sizes, and SDPA in float32 needs no kernel made for each size.
    """
    if q.shape[2] < PLAIN_ATTENTION_THRESHOLD and not (mask and mask.rows_differ):
        with torch.autocast("cpu", enabled=False):
            return attend(q.float(), k.float(), v.float(), window).to(q.dtype)
    q, parts = q * q.shape[-1] ** -0.5, []  # the products are autocast's
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    for block in (mask or build_mask(q.shape[2], k.shape[2], window, q)).blocks:
        scores = _slice_steps(q, block.queries) @ _slice_steps(k, block.keys).mT
        if block.mask is None:
            queries, keys = scores.shape[-2:]
            scores = scores.masked_fill(~window_mask(queries, keys, window, q.device), -torch.inf)
        else:
            scores = scores + block.mask
        parts.append(scores.softmax(-1) @ _slice_steps(v, block.keys))
    return torch.cat(parts, 2)


def _slice_steps(x: Tensor, steps: slice) -> Tensor:
    return x if steps.stop - steps.start == x.shape[2] else x[:, :, steps]


def frequencies(head_dim: int, period: float, device: torch.device) -> Float[Tensor, " half"]:
    """Return the rotary frequency of each pair of features: radians a step, in float64."""
    exponent = torch.arange(0, head_dim, 2, device=device, dtype=torch.float64) / head_dim
    return torch.pow(period, -exponent)


def rotary_factors(first: int, steps: int, frequencies: Float[Tensor, " half"]) -> Complex[Tensor, "t half"]:
    """Return cosine + i sine of the rotary angles at the positions first .. first+steps-1.

    Angles are float64: a stream's positions reach millions, where float32 cannot hold a fraction of a
    rotation.

    Args:
        first: Position of the first step.
        steps: Number of steps, t.
        frequencies: Radians a step of each pair of features, from `frequencies`.

    Returns:
        complex64 factors [t, head_dim / 2], for `rotate`.
    """
    position = torch.arange(first, first + steps, device=frequencies.device, dtype=frequencies.dtype)
    angle = position[:, None] * frequencies
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def rotate(x: Float[Tensor, "*shape d"], factors: Complex[Tensor, "..."]) -> Float[Tensor, "*shape d"]:
    """Apply rotary embedding to the interleaved pairs (2i, 2i+1) of the last axis, computed in float32.

    Args:
        x: Queries or keys, heads' features last.
        factors: From `rotary_factors`, of a shape that broadcasts to [*shape, d / 2].

    Returns:
        A tensor of the shape and dtype of `x`.
    """
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * factors).view(x.shape).to(x.dtype)


def rotate_projected(
    qkv: Float[Tensor, "b t three h d"], factors: Complex[Tensor, "t one one half"]
) -> Float[Tensor, "b t three h d"]:
    """Rotate queries and keys and leave values as they are; in place where no gradient is wanted.

    Args:
        qkv: Queries, keys and values of all heads, along the third axis.
        factors: From `rotary_factors`, one for each step and pair of features.

    Returns:
        A tensor of the shape of `qkv`, or `qkv` itself.
    """
    if qkv.dtype == torch.float32 and not qkv.requires_grad:
        qkv.view(torch.complex64)[:, :, :2].mul_(factors)
        return qkv
    return torch.cat([rotate(qkv[:, :, :2], factors), qkv[:, :, 2:]], 2)
