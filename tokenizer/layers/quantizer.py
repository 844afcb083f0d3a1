"""Residual vector quantization with factorised codebooks and quantizer dropout (paper 3.1, A.1)."""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from tokenizer.config import QuantizerConfig
from tokenizer.layers.quantizer_inference import Projection, QuantizerDecoder, QuantizerEncoder


@dataclass(frozen=True)
class Quantized:
    """The quantizer's outputs in training."""

    latents: Float[Tensor, "b t d"]
    """Forward: the sum of the chosen code vectors; backward: the identity (straight-through)."""
    codes: Int[Tensor, "b t k"]
    projected: Float[Tensor, "b t k l"]
    """The low-dimensional input of each codebook, without gradient."""
    commitment_loss: Float[Tensor, ""]
    codebook_loss: Float[Tensor, ""]


class VectorQuantizer(nn.Module):
    """One codebook: project to a few dimensions, take the vector of nearest direction, project back.

    Its projections are weight-normed (paper 3.1, A.1).
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.project_in = weight_norm(nn.Linear(config.dim, config.codebook_dim))
        self.codebook = nn.Embedding(config.codebook_size, config.codebook_dim)
        self.project_out = weight_norm(nn.Linear(config.codebook_dim, config.dim))

    def nearest(self, low: Float[Tensor, "b t l"]) -> Int[Tensor, "b t"]:
        """Return the code whose vector is nearest to `low` in direction (cosine similarity).

        The vectors themselves are not normalised.

        Args:
            low: Low-dimensional projections [b, t, l].

        Returns:
            Codes [b, t].
        """
        return (low @ F.normalize(self.codebook.weight, dim=-1).T).argmax(-1)


class ResidualVQ(nn.Module):
    """Residual VQ: each codebook quantises what the ones before it left over (paper 3.1, A.1).

    It is always computed in float32.
    """

    def __init__(self, config: QuantizerConfig, code_dim: int) -> None:
        super().__init__()
        self.project_in = weight_norm(nn.Linear(code_dim, config.dim))
        self.layers = cast(
            "list[VectorQuantizer]",
            nn.ModuleList(VectorQuantizer(config) for _ in range(config.num_codebooks)),
        )
        self.project_out = weight_norm(nn.Linear(config.dim, code_dim))
        self._init_orthogonal(config)

    @torch.no_grad()
    def _init_orthogonal(self, config: QuantizerConfig) -> None:
        """Initialise each codebook's projections to a subspace of its own, orthogonal while any are left.

        They then take out of the residual what they put back, and it shrinks from the first step on.
        """
        dim, low = config.dim, config.codebook_dim
        basis = nn.init.orthogonal_(torch.empty(dim, dim))
        for k, layer in enumerate(self.layers):
            subspace = basis[[(k * low + i) % dim for i in range(low)]]
            for projection, weight in ((layer.project_in, subspace), (layer.project_out, subspace.T)):
                gain, direction = weight.norm(dim=1, keepdim=True), weight
                projection.get_parameter("parametrizations.weight.original0").copy_(gain)
                projection.get_parameter("parametrizations.weight.original1").copy_(direction)
                projection.get_parameter("bias").zero_()

    def forward(self, x: Float[Tensor, "b t d"], depth: Int[Tensor, " b"] | None = None) -> Quantized:
        """Quantise for training, with quantizer dropout (paper 3.1, A.1).

        Both losses are means over the time and the dimensions of the low-dimensional space, summed
        over codebooks; a codebook that a sample does not use costs it nothing (paper eq. 2-3).

        Args:
            x: Latents of the encoder [b, t, d].
            depth: By sample, the number of codebooks that it is rebuilt from; all when None.

        Returns:
            The quantised latents, the codes of all codebooks, and the losses.
        """
        if depth is None:
            depth = torch.full((len(x),), len(self.layers), device=x.device)
        with torch.autocast(x.device.type, enabled=False):
            residual = self.project_in(x.float())
            total = torch.zeros_like(residual)
            codes, projected, commitment, codebook = [], [], residual.new_zeros(()), residual.new_zeros(())
            for k, layer in enumerate(self.layers):
                used = (k < depth).float()[:, None, None]
                low = layer.project_in(residual)
                code = layer.nearest(low)
                vector = layer.codebook(code)
                commitment = commitment + (used * (low - vector.detach()).square()).mean()
                codebook = codebook + (used * (low.detach() - vector).square()).mean()
                out = layer.project_out(low + (vector - low).detach())
                total, residual = total + used * out, residual - out
                codes.append(code)
                projected.append(low.detach())
            latents, stacked = self.project_out(total), (torch.stack(codes, -1), torch.stack(projected, -2))
            return Quantized(latents, *stacked, commitment, codebook)

    def encode(self, x: Float[Tensor, "b t d"], depth: int) -> Int[Tensor, "b t k"]:
        """Return codes of the first `depth` codebooks: exactly the first columns of the full encoding.

        Args:
            x: Latents of the encoder [b, t, d].
            depth: Number of codebooks, k.

        Returns:
            Codes [b, t, k].
        """
        return self.encoder()(x, depth)

    def decode(self, codes: Int[Tensor, "b t k"]) -> Float[Tensor, "b t d"]:
        """Return the latents of codes of the first k codebooks; the others contribute nothing.

        Args:
            codes: [b, t, k]; the number of columns is the depth.

        Returns:
            Latents [b, t, d].
        """
        return self.decoder()(codes)

    @torch.no_grad()
    def encoder(self) -> QuantizerEncoder:
        """Precompute the encoder for inference from the present weights."""
        codebooks = self._codebooks()
        with torch.autocast(codebooks.device.type, enabled=False):
            ins, outs = (
                _fold_weight_norm([getattr(layer, name) for layer in self.layers])
                for name in ("project_in", "project_out")
            )
            project_in = _first(_fold_weight_norm([self.project_in]))
            return QuantizerEncoder.of(project_in, ins, outs, codebooks)

    @torch.no_grad()
    def decoder(self) -> QuantizerDecoder:
        """Precompute the decoder for inference from the present weights."""
        outs = _fold_weight_norm([layer.project_out for layer in self.layers])
        return QuantizerDecoder.of(outs, self._codebooks(), _first(_fold_weight_norm([self.project_out])))

    def _codebooks(self) -> Float[Tensor, "k v l"]:
        return torch.stack([layer.codebook.weight for layer in self.layers])


def _fold_weight_norm(projections: list[nn.Module]) -> Projection:
    """Stack weight-normed projections, with the weights that the parametrization computes."""
    gain, direction, bias = (
        torch.stack([projection.get_parameter(name) for projection in projections])
        for name in ("parametrizations.weight.original0", "parametrizations.weight.original1", "bias")
    )
    flat = direction.flatten(0, 1), gain.flatten(0, 1)
    weight = torch._weight_norm(*flat, 0)  # pyright: ignore[reportPrivateImportUsage]
    return Projection(weight.view_as(direction).mT, bias)


def _first(stacked: Projection) -> Projection:
    return Projection(stacked.weight[0], stacked.bias[0])
