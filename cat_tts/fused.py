"""One Transformer layer for one position at a time: fewer and larger products than its modules make.

Queries, keys and values come from one product, gate and up from another, and a residual is added inside
the product that ends its branch. The weights are copies, laid out as the product of few rows wants them.
"""

from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Weights = Literal["float", "int8"]


class Product:
    """x -> x W, for a weight of nn.Linear's layout [out, in]."""

    def __init__(self, weight: Float[Tensor, "o i"]) -> None:
        out, inner = weight.shape
        # Of the two layouts the one whose rows are longer is read faster.
        self.weight = weight.detach().t().contiguous() if out > inner else weight.detach().clone().t()

    def __call__(self, x: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        return torch.mm(x, self.weight)

    def added_to(self, residual: Float[Tensor, "n o"], x: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        """residual + x W."""
        return torch.addmm(residual, x, self.weight)


class Layer:
    """Grouped-query attention over cached positions and a SwiGLU feed-forward, pre-norm, as in Qwen3."""

    def __init__(self, layer: nn.Module, heads: int, kv_heads: int, head_dim: int) -> None:
        attention, mlp = cast("nn.Module", layer.self_attn), cast("nn.Module", layer.mlp)
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.input_gain, self.ffn_gain = (
            _gain(layer, "input_layernorm"),
            _gain(layer, "post_attention_layernorm"),
        )
        gains = [
            _gain(attention, "q_norm").expand(heads, -1),
            _gain(attention, "k_norm").expand(kv_heads, -1),
        ]
        self.qk_gain = torch.cat(gains)
        self.qkv = Product(torch.cat([_weight(attention, f"{name}_proj") for name in "qkv"]))
        # SDPA leaves the heads of a group apart, [rep, group]: the output product reads them in that order.
        output = _weight(attention, "o_proj").unflatten(1, (kv_heads, heads // kv_heads, head_dim))
        self.output = Product(output.transpose(1, 2).flatten(1))
        self.gate_up = Product(torch.cat([_weight(mlp, "gate_proj"), _weight(mlp, "up_proj")]))
        self.down = Product(_weight(mlp, "down_proj"))

    def __call__(
        self,
        x: Float[Tensor, "n d"],
        cache: Float[Tensor, "b p kv h"],
        place: int | Int[Tensor, " n"],
        seen: int,
        mask: Bool[Tensor, "n 1 1 p"] | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
    ) -> Float[Tensor, "n d"]:
        """Write the keys and values of row i to `cache[i, place]` and attend to its first `seen` positions.

        `cache` holds keys, then values, in its third dimension; a `mask` says which positions a row has.
        """
        qkv = self.qkv(rms_norm(x, self.input_gain)).view(len(x), -1, self.head_dim)
        qk = qkv[:, : self.heads + self.kv_heads]
        turned = rms_norm(qk, self.qk_gain)
        if rotary is not None:
            turned = rotate(turned, *rotary)
        q, k, v = turned[:, : self.heads], turned[:, self.heads :], qkv[:, self.heads + self.kv_heads :]
        if isinstance(place, int):
            cache[: len(x), place, : self.kv_heads] = k
            cache[: len(x), place, self.kv_heads :] = v
        else:
            cache.flatten(0, 1).index_copy_(0, place, torch.cat([k, v], 1))
        keys, values = cache[: len(x), :seen].transpose(1, 2).chunk(2, 1)
        grouped = q.view(len(x), self.kv_heads, -1, self.head_dim)
        attended = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask)
        x = self.output.added_to(x, attended.transpose(1, 2).reshape(len(x), -1))
        gate, up = self.gate_up(rms_norm(x, self.ffn_gain)).chunk(2, -1)
        return self.down.added_to(x, F.silu(gate) * up)


def rms_norm(x: Float[Tensor, "*n d"], gain: Float[Tensor, "*h d"]) -> Float[Tensor, "*n d"]:
    """Root-mean-square normalisation with eps 1e-6.

    On the CPU torch puts it together from a dozen operators; this takes four.
    """
    size = x.shape[-1]
    if x.is_cuda:
        return F.rms_norm(x, (size,), eps=1e-6) * gain
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    scale = torch.hypot(norm, norm.new_tensor((size * 1e-6) ** 0.5)) * size**-0.5
    return (x / scale).to(x) * gain


def rotate(x: Float[Tensor, "n h d"], cosine: Tensor, sine: Tensor) -> Float[Tensor, "n h d"]:
    """Rotary positions, half-split; `sine` is negative in its first half."""
    return torch.addcmul(x * cosine, x.roll(x.shape[-1] // 2, -1), sine)


def _weight(module: nn.Module, name: str) -> Tensor:
    return cast("nn.Linear", getattr(module, name)).weight.detach()


def _gain(module: nn.Module, name: str) -> Tensor:
    return cast("nn.RMSNorm", getattr(module, name)).weight.detach()
