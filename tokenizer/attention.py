"""Windowed causal attention with one door, rotary positions, and the key/value cache."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

try:
    from flash_attn import flash_attn_func  # pyright: ignore[reportMissingImports]
except ImportError:
    flash_attn_func = None

SMALLEST_BLOCK = 64
"""Queries attended at once when the window is shorter than this."""


@dataclass
class KVCache:
    """The last `window - 1` keys and values of one layer, and how many steps it has seen."""

    keys: Float[Tensor, "b h t d"]
    values: Float[Tensor, "b h t d"]
    window: int
    seen: int = 0

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add a chunk of any length; return all that its queries may attend to."""
        self.seen += keys.shape[2]
        keys = torch.cat([self.keys, keys], 2)
        values = torch.cat([self.values, values], 2)
        first = max(0, keys.shape[2] - (self.window - 1))
        self.keys, self.values = keys[:, :, first:], values[:, :, first:]
        return keys, values


def window_mask(queries: int, keys: int, window: int, device: torch.device) -> Bool[Tensor, "queries keys"]:
    """True where attended. The last query is aligned with the last key; `window` counts the query itself."""
    i = torch.arange(keys - queries, keys, device=device)[:, None]
    j = torch.arange(keys, device=device)
    return (j <= i) & (j > i - window)


def attend(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b g m d"], v: Float[Tensor, "b g m d"], window: int
) -> Float[Tensor, "b h n d"]:
    """Causal attention of each query to the last `window` keys, itself included; query n-1 stands at key m-1.

    FlashAttention 2 when it is installed and fits, else SDPA over blocks of queries, each with the keys
    that it can see: the cost grows with n x window, never with n x m.
    """
    queries, keys = q.shape[2], k.shape[2]
    if flash_attn_func is not None and q.is_cuda and q.dtype in (torch.float16, torch.bfloat16):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return flash_attn_func(q, k, v, causal=True, window_size=(window - 1, 0)).transpose(1, 2)
    grouped = q.shape[1] != k.shape[1]
    if queries == keys <= window:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    if queries == 1 and keys <= window:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=grouped)
    parts, past, block = [], keys - queries, max(window, SMALLEST_BLOCK)
    for start in range(0, queries, block):
        stop = min(start + block, queries)
        first = max(0, past + start - window + 1)
        mask = window_mask(stop - start, past + stop - first, window, q.device)
        seen = slice(first, past + stop)
        parts.append(
            F.scaled_dot_product_attention(
                q[:, :, start:stop], k[:, :, seen], v[:, :, seen], attn_mask=mask, enable_gqa=grouped
            )
        )
    return torch.cat(parts, 2)


def rotary_table(
    first: int, steps: int, head_dim: int, period: float, device: torch.device
) -> Float[Tensor, "two t half"]:
    """Cosines and sines of the positions first .. first+steps-1, in float32."""
    exponent = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim
    position = torch.arange(first, first + steps, device=device, dtype=torch.float32)
    angle = position[:, None] * torch.pow(period, -exponent)
    return torch.stack([angle.cos(), angle.sin()])


def rotate(x: Float[Tensor, "b h t d"], table: Float[Tensor, "two t half"]) -> Float[Tensor, "b h t d"]:
    """Rotary embedding of the interleaved pairs (2i, 2i+1), computed in float32."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = table
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2).to(x.dtype)
