"""The only building block of CAT: causal pre-norm Transformer layers, and the stages made of them."""

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tokenizer.attention import attend, frequencies, rotate
from tokenizer.config import StageConfig
from tokenizer.stream import Chunk, StageCache, alone, capacity


class LayerWeights(NamedTuple):
    """A layer's weights as plain tensors, matrices with inputs as rows.

    A streamed frame is so little work that looking parameters up in their modules would cost as much.
    """

    num_heads: int
    window: int
    attention_norm: tuple[Tensor, Tensor]
    qkv: Float[Tensor, "d three_d"]
    attention_out: Float[Tensor, "d d"]
    attention_scale: Float[Tensor, " d"]
    ffn_norm: tuple[Tensor, Tensor]
    ffn_in: Float[Tensor, "d f"]
    ffn_out: Float[Tensor, "f d"]
    ffn_scale: Float[Tensor, " d"]


def run_layer(w: LayerWeights, x: Float[Tensor, "n d"], chunk: Chunk, index: int) -> Float[Tensor, "n d"]:
    """Layer `index` of its stage, on all steps of all signals one below the other."""
    width = x.shape[-1:]
    qkv = torch.layer_norm(x, width, *w.attention_norm) @ w.qkv
    qkv = rotate(qkv.view(-1, chunk.steps, 3, w.num_heads, width[0] // w.num_heads), chunk.turns)
    q, k, v = chunk.extend(index, qkv.permute(2, 0, 3, 1, 4))
    heads = attend(q, k, v, w.window, chunk.seen).transpose(1, 2).reshape(x.shape)
    x = torch.addcmul(x, w.attention_scale, heads @ w.attention_out)
    return torch.addcmul(
        x, w.ffn_scale, F.gelu(torch.layer_norm(x, width, *w.ffn_norm) @ w.ffn_in) @ w.ffn_out
    )


class Layer(nn.Module):
    """Attention and GELU feed-forward, each behind a LayerNorm and a per-channel gain (LayerScale)."""

    def __init__(self, config: StageConfig, window: int, layer_scale: float) -> None:
        super().__init__()
        self.num_heads, self.window = config.num_heads, window
        self.attention_norm = nn.LayerNorm(config.dim)
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.attention_out = nn.Linear(config.dim, config.dim, bias=False)
        self.attention_scale = nn.Parameter(torch.full((config.dim,), layer_scale))
        self.ffn_norm = nn.LayerNorm(config.dim)
        self.ffn_in = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.ffn_out = nn.Linear(config.ffn_dim, config.dim, bias=False)
        self.ffn_scale = nn.Parameter(torch.full((config.dim,), layer_scale))

    def forward(self, x: Float[Tensor, "n d"], chunk: Chunk, index: int) -> Float[Tensor, "n d"]:
        return run_layer(self.weights(), x, chunk, index)

    def lay_out(self) -> None:
        """Let the matrices that do not narrow lie with inputs as rows; values and names stay.

        A streamed frame takes as long as its weights take to be read, and on a CPU the layout with the longer
        rows is read faster.
        """
        for linear in (self.qkv, self.attention_out, self.ffn_in):
            weight = linear.weight
            if weight.is_cpu and weight.is_contiguous():
                weight.data = weight.data.t().contiguous().t()

    def weights(self) -> LayerWeights:
        """Views of the parameters, not copies."""
        return LayerWeights(
            self.num_heads,
            self.window,
            (self.attention_norm.weight, self.attention_norm.bias),
            self.qkv.weight.t(),
            self.attention_out.weight.t(),
            self.attention_scale,
            (self.ffn_norm.weight, self.ffn_norm.bias),
            self.ffn_in.weight.t(),
            self.ffn_out.weight.t(),
            self.ffn_scale,
        )


class Stage(nn.Module):
    """Layers at one frame rate, with a projection in or out only where the widths differ. No final norm."""

    def __init__(self, config: StageConfig, window: int, rope_period: float, layer_scale: float) -> None:
        super().__init__()
        self.config, self.window, self.rope_period = config, window, rope_period
        self.project_in = _projection(config.input_dim, config.dim)
        self.layers = cast(
            "list[Layer]", nn.ModuleList(Layer(config, window, layer_scale) for _ in range(config.num_layers))
        )
        self.project_out = _projection(config.dim, config.output_dim)

    def forward(self, x: Float[Tensor, "b t i"], cache: StageCache | None = None) -> Float[Tensor, "b t o"]:
        x = self.project_in(x)
        shape = x.shape
        chunk = cache.extend(shape[1], shape[0]) if cache else alone(x, self.window, self._frequencies())
        x = x.flatten(0, 1)
        for index, layer in enumerate(self.layers):
            x = run_layer(cache.weights[index], x, chunk, index) if cache else layer(x, chunk, index)
        return self.project_out(x.view(shape))

    def cache(self, batch: int) -> StageCache:
        """An empty past, for a stream of `batch` signals."""
        for layer in self.layers:
            layer.lay_out()
        heads, weights = self.config.num_heads, [layer.weights() for layer in self.layers]
        shape = (len(self.layers), 2, batch, heads, capacity(self.window), self.config.dim // heads)
        block = weights[0].qkv.new_zeros(shape)
        return StageCache(block, self.window, self._frequencies(), weights)

    def _frequencies(self) -> Tensor:
        head_dim = self.config.dim // self.config.num_heads
        return frequencies(head_dim, self.rope_period, self.layers[0].qkv.weight.device)


def fold(x: Float[Tensor, "b t d"], patch: int) -> Float[Tensor, "b u e"]:
    """Patchify: `patch` neighbouring steps become one; feature c of step i goes to c * patch + i."""
    batch, steps, width = x.shape
    return x.reshape(batch, -1, patch, width).transpose(-1, -2).reshape(batch, steps // patch, -1)


def unfold(x: Float[Tensor, "b u e"], patch: int) -> Float[Tensor, "b t d"]:
    """The exact inverse of `fold`."""
    batch, steps, _ = x.shape
    return x.reshape(batch, steps, -1, patch).transpose(-1, -2).reshape(batch, steps * patch, -1)


def _projection(input_dim: int, output_dim: int) -> nn.Module:
    return nn.Identity() if input_dim == output_dim else nn.Linear(input_dim, output_dim, bias=False)
