"""Residual vector quantization with factorised codebooks and quantizer dropout (paper 3.1, A.1)."""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from tokenizer.config import QuantizerConfig
from tokenizer.layers.quantizer_inference import Lookup, Projection, Search


@dataclass(frozen=True)
class Quantized:
    """What the quantizer makes of the encoder's output in training."""

    latents: Float[Tensor, "b t d"]
    """Forward: the sum of the chosen codebook rows; backward: the identity (straight-through)."""
    codes: Int[Tensor, "b t k"]
    low: Float[Tensor, "b t k l"]
    """What each codebook was asked for, without gradient."""
    commitment_loss: Float[Tensor, ""]
    codebook_loss: Float[Tensor, ""]


class VectorQuantizer(nn.Module):
    """One codebook: project to a few dimensions, take the row of nearest direction, project back."""

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.project_in = weight_norm(nn.Linear(config.dim, config.codebook_dim))
        self.codebook = nn.Embedding(config.codebook_size, config.codebook_dim)
        self.project_out = weight_norm(nn.Linear(config.codebook_dim, config.dim))

    def nearest(self, low: Float[Tensor, "b t l"]) -> Int[Tensor, "b t"]:
        """The row whose direction is nearest to that of `low`; the rows themselves stay raw."""
        return (low @ F.normalize(self.codebook.weight, dim=-1).T).argmax(-1)


class ResidualVQ(nn.Module):
    """Each codebook quantises what the ones before it left over. Always computed in float32."""

    def __init__(self, config: QuantizerConfig, code_dim: int) -> None:
        super().__init__()
        self.project_in = weight_norm(nn.Linear(code_dim, config.dim))
        self.layers = cast(
            "list[VectorQuantizer]",
            nn.ModuleList(VectorQuantizer(config) for _ in range(config.num_codebooks)),
        )
        self.project_out = weight_norm(nn.Linear(config.dim, code_dim))
        self._face(config)

    @torch.no_grad()
    def _face(self, config: QuantizerConfig) -> None:
        """Give each codebook a subspace of its own as long as there are some, and projections that take out
        of the residual what they put back: the rest then shrinks from the first step on."""
        dim, low = config.dim, config.codebook_dim
        directions = nn.init.orthogonal_(torch.empty(dim, dim))
        for k, layer in enumerate(self.layers):
            rows = directions[[(k * low + i) % dim for i in range(low)]]
            for projection, weight in ((layer.project_in, rows), (layer.project_out, rows.T)):
                gain, direction = weight.norm(dim=1, keepdim=True), weight
                projection.get_parameter("parametrizations.weight.original0").copy_(gain)
                projection.get_parameter("parametrizations.weight.original1").copy_(direction)
                projection.get_parameter("bias").zero_()

    def forward(self, x: Float[Tensor, "b t d"], depth: Int[Tensor, " b"] | None = None) -> Quantized:
        """Quantise; sample i is rebuilt from its first `depth[i]` codebooks only (all when None).

        Both losses are means over the time and the dimensions of the low-dimensional space, summed
        over codebooks; a codebook that a sample does not use costs it nothing (paper eq. 2-3).
        """
        if depth is None:
            depth = torch.full((len(x),), len(self.layers), device=x.device)
        with torch.autocast(x.device.type, enabled=False):
            residual = self.project_in(x.float())
            total = torch.zeros_like(residual)
            codes, lows, commitment, codebook = [], [], residual.new_zeros(()), residual.new_zeros(())
            for k, layer in enumerate(self.layers):
                used = (k < depth).float()[:, None, None]
                low = layer.project_in(residual)
                code = layer.nearest(low)
                row = layer.codebook(code)
                commitment = commitment + (used * (low - row.detach()).square()).mean()
                codebook = codebook + (used * (low.detach() - row).square()).mean()
                out = layer.project_out(low + (row - low).detach())
                total, residual = total + used * out, residual - out
                codes.append(code)
                lows.append(low.detach())
            found = torch.stack(codes, -1), torch.stack(lows, -2)
            return Quantized(self.project_out(total), *found, commitment, codebook)

    def encode(self, x: Float[Tensor, "b t d"], depth: int) -> Int[Tensor, "b t k"]:
        """Codes of the first `depth` codebooks: exactly the first columns of the full encoding."""
        return self.search()(x, depth)

    def decode(self, codes: Int[Tensor, "b t k"]) -> Float[Tensor, "b t d"]:
        """Latents of the first k codebooks: depth is the number of columns, nothing stands in for others."""
        return self.lookup()(codes)

    @torch.no_grad()
    def search(self) -> Search:
        """The present weights in the form that finds codes."""
        rows = self._rows()
        with torch.autocast(rows.device.type, enabled=False):
            ins, outs = (
                _folded([getattr(layer, name) for layer in self.layers])
                for name in ("project_in", "project_out")
            )
            return Search.of(_only(_folded([self.project_in])), ins, outs, rows)

    @torch.no_grad()
    def lookup(self) -> Lookup:
        """The present weights in the form that reads codes."""
        outs = _folded([layer.project_out for layer in self.layers])
        return Lookup.of(outs, self._rows(), _only(_folded([self.project_out])))

    def _rows(self) -> Float[Tensor, "k v l"]:
        return torch.stack([layer.codebook.weight for layer in self.layers])


def _folded(projections: list[nn.Module]) -> Projection:
    """Weight-normed projections, stacked: what the parametrization computes, once for all."""
    gain, direction, bias = (
        torch.stack([projection.get_parameter(name) for projection in projections])
        for name in ("parametrizations.weight.original0", "parametrizations.weight.original1", "bias")
    )
    flat = direction.flatten(0, 1), gain.flatten(0, 1)
    weight = torch._weight_norm(*flat, 0)  # pyright: ignore[reportPrivateImportUsage]
    return Projection(weight.view_as(direction).mT, bias)


def _only(stacked: Projection) -> Projection:
    return Projection(stacked.weight[0], stacked.bias[0])
