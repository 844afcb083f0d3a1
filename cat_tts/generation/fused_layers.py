"""The parts of a Transformer layer for one position at a time: fewer and larger operators than modules make.

At one position the products are so small that every operator around them matters. Queries, keys and values
come from one product, gate and up from another; a residual is added inside the product that ends its branch;
the gain of a norm goes into the weights of the product that reads it. The weights are copies, laid out as
products of few rows want them.
"""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cat_tts.config import TransformerConfig
from cat_tts.generation.int8_linear import Weights, make_product

EPS = 1e-6


class Norm:
    """RMSNorm in front of a product.

    On CUDA it is one kernel. On the CPU torch puts it together from a dozen operators: there it is three,
    which give vectors of length 1, and `folded` puts the rest into the weight.
    """

    def __init__(self, gain: Float[Tensor, " d"]) -> None:
        self.gain, self.fused = gain.detach(), gain.is_cuda
        self.floor = gain.new_tensor([(len(gain) * EPS) ** 0.5], dtype=torch.float32)

    def folded(self, weight: Float[Tensor, "o d"]) -> Float[Tensor, "o d"]:
        """Return the weight [o, d] for the product that reads this norm, with the gain folded in."""
        return weight.detach() if self.fused else weight.detach() * self.gain * len(self.gain) ** 0.5

    def __call__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Normalise rows `x` [n, d]; products that read them need `folded` weights."""
        if self.fused:
            return F.rms_norm(x, self.gain.shape, self.gain, EPS)
        return x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), self.floor)


class FusedLayer:
    """The products and norms of a Qwen3 layer; the caller computes the attention in between.

    qkv(norm(x)) is a row of `heads` queries, `kv_heads` keys and `kv_heads` values.
    """

    def __init__(self, layer: nn.Module, config: TransformerConfig, weights: Weights) -> None:
        attention, mlp = cast("nn.Module", layer.self_attn), cast("nn.Module", layer.mlp)
        self.heads, self.kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self.norm = Norm(_weight(layer, "input_layernorm"))
        self.ffn_norm = Norm(_weight(layer, "post_attention_layernorm"))
        self.q_gain, self.k_gain = _weight(attention, "q_norm"), _weight(attention, "k_norm")
        self.floor = self.q_gain.new_tensor([(config.head_dim * EPS) ** 0.5], dtype=torch.float32)
        qkv = torch.cat([_weight(attention, f"{name}_proj") for name in "qkv"])
        gate_up = torch.cat([_weight(mlp, "gate_proj"), _weight(mlp, "up_proj")])
        self.qkv = make_product(self.norm.folded(qkv), weights)
        self.output = make_product(_weight(attention, "o_proj"), weights)
        self.gate_up = make_product(self.ffn_norm.folded(gate_up), weights)
        self.down = make_product(_weight(mlp, "down_proj"), weights)

    def finish(self, x: Float[Tensor, "n d"], attended: Float[Tensor, "n g r h"]) -> Float[Tensor, "n d"]:
        """Compute the rest of the layer: output projection, residuals and feed-forward.

        Args:
            x: Input [n, d] of the layer.
            attended: Attention output [n, g, r, h] of g groups of r heads.

        Returns:
            Output [n, d] of the layer.
        """
        x = self.output.added_to(x, attended.reshape(x.shape[0], -1))
        both = self.gate_up(self.ffn_norm(x))
        half = both.shape[1] // 2
        return self.down.added_to(x, F.silu(both[:, :half]).mul_(both[:, half:]))


def _weight(module: nn.Module, name: str) -> Tensor:
    return cast("nn.Linear", getattr(module, name)).weight.detach()
