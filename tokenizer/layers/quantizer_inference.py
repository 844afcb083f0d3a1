"""The quantizer at inference: all that is the same for every frame is computed beforehand.

A `QuantizerEncoder` turns latents into codes, a `QuantizerDecoder` codes into latents. They are built from
the weights of a ResidualVQ for one call, or once for a stream, and never stored beside the weights: nothing
in them can be out of date.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

GROUPED_ARGMAX_THRESHOLD, GROUP_SIZE = 16, 32
"""Frames from which a CPU finds the largest of many scores faster in groups, and the size of a group."""


@dataclass(frozen=True)
class Projection:
    """An affine map x -> x @ weight + bias, weight norm folded in; or a stack of k of them."""

    weight: Float[Tensor, "*k i o"]
    bias: Float[Tensor, "*k o"]

    def __call__(self, x: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        """Return the map of `x` [n, i], of shape [n, o]."""
        return torch.addmm(self.bias, x, self.weight)


@dataclass(frozen=True)
class QuantizerEncoder:
    """Residual quantisation that never forms a residual (paper 3.1, A.1).

    A codebook reads the residual only through its projection to a few dimensions. So the projections of all
    codebooks are applied to the input at once, and each chosen code vector is subtracted as the later
    codebooks would read it.
    """

    project_in: Projection
    project_low: Projection
    """To the low-dimensional inputs of all codebooks, side by side, as if no code were chosen before them."""
    normalized_codebooks: list[Float[Tensor, "l v"]]
    """By codebook: its normalised vectors, as columns."""
    residual_projections: list[Float[Tensor, "l _"]]
    """By codebook: what a change of its low-dimensional output does to the inputs of all later codebooks."""
    codebooks: list[Float[Tensor, "v l"]]

    @classmethod
    def of(
        cls, project_in: Projection, ins: Projection, outs: Projection, codebooks: Float[Tensor, "k v l"]
    ) -> "QuantizerEncoder":
        """Precompute the encoder.

        Args:
            project_in: From latents to the width of the residual.
            ins: The stacked input projections of all codebooks, residual to low dimension.
            outs: Their stacked output projections, low dimension to residual.
            codebooks: All codebooks [k, v, l].

        Returns:
            The encoder for these weights.
        """
        num_codebooks, width, low = ins.weight.shape
        before = outs.bias.cumsum(0) - outs.bias  # what the earlier codebooks' biases take away
        bias = ins.bias - (before[:, None] @ ins.weight).squeeze(1)
        weight = ins.weight.transpose(0, 1).reshape(width, num_codebooks * low)
        products = (outs.weight.flatten(0, 1) @ weight).split(low)
        return cls(
            project_in=project_in,
            project_low=Projection(weight, bias.flatten()),
            normalized_codebooks=list(F.normalize(codebooks, dim=-1).mT.contiguous()),
            residual_projections=[product[:, (k + 1) * low :] for k, product in enumerate(products)],
            codebooks=list(codebooks),
        )

    def __call__(self, x: Float[Tensor, "b t d"], depth: int) -> Int[Tensor, "b t k"]:
        """Return codes of the first `depth` codebooks: exactly the first columns of the full encoding.

        Args:
            x: Latents [b, t, d].
            depth: Number of codebooks, k.

        Returns:
            Codes [b, t, k].
        """
        low, size = self.normalized_codebooks[0].shape
        grouped = x.device.type == "cpu" and x.shape[0] * x.shape[1] >= GROUPED_ARGMAX_THRESHOLD
        grouped = grouped and size % GROUP_SIZE == 0
        with _without_autocast(x.device):
            projected, codes = self.project_low(self.project_in(x.float().flatten(0, 1))), []
            for k in range(depth):
                current, later = projected[:, k * low : (k + 1) * low], projected[:, (k + 1) * low :]
                scores = current @ self.normalized_codebooks[k]
                code = _grouped_argmax(scores) if grouped else scores.argmax(-1)
                chosen = self.codebooks[k].index_select(0, code)
                later.addmm_(chosen, self.residual_projections[k], alpha=-1)
                codes.append(code)
            return torch.stack(codes, -1).view(*x.shape[:2], depth)


@dataclass(frozen=True)
class QuantizerDecoder:
    """The sum of the projected code vectors that codes stand for, projected to latents (paper 3.1, A.1)."""

    indices: Int[Tensor, " k"]
    """0, 1, ... k - 1."""
    codebooks: Float[Tensor, "k v l"]
    project: Float[Tensor, "kl r"]
    """From the chosen vectors of all codebooks, side by side, to the sum of their projections."""
    biases: Float[Tensor, "depths r"]
    """The sum of the biases of the first 0, 1, ... k codebooks."""
    project_out: Projection | None

    @classmethod
    def of(
        cls, outs: Projection, codebooks: Float[Tensor, "k v l"], project_out: Projection
    ) -> "QuantizerDecoder":
        """Precompute the decoder.

        Args:
            outs: The stacked output projections of all codebooks, low dimension to residual.
            codebooks: All codebooks [k, v, l].
            project_out: From the width of the residual to latents.

        Returns:
            The decoder for these weights.
        """
        biases = F.pad(outs.bias.cumsum(0), (0, 0, 1, 0))
        indices = torch.arange(len(codebooks), device=codebooks.device)
        return cls(indices, codebooks, outs.weight.flatten(0, 1), biases, project_out)

    def folded(self) -> "QuantizerDecoder":
        """Return this decoder with both projections in one, which pays for a stream but not for one call."""
        if self.project_out is None:
            return self
        with _without_autocast(self.codebooks.device):
            project = self.project @ self.project_out.weight
            return replace(self, project=project, biases=self.project_out(self.biases), project_out=None)

    def __call__(
        self, codes: Int[Tensor, "b t k"], depth: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """Return the latents of codes; codebooks that are not in use contribute nothing.

        Args:
            codes: [b, t, k], of the first k codebooks.
            depth: By signal, the number of codebooks in use; all k where it is None.

        Returns:
            Latents [b, t, d].
        """
        batch, steps, columns = codes.shape
        indices = self.indices[:columns]
        with _without_autocast(codes.device):
            if depth is None:
                chosen, bias = self.codebooks[indices, codes], self.biases[columns]
            else:
                used = (indices < depth[:, None])[:, None]  # [b, 1, k]
                chosen = self.codebooks[indices, codes.where(used, 0)] * used[..., None]
                bias = self.biases[depth].repeat_interleave(steps, 0)
            chosen = chosen.reshape(batch * steps, -1)
            latents = torch.addmm(bias, chosen, self.project[: chosen.shape[1]])
            if self.project_out is not None:
                latents = self.project_out(latents)
            return latents.view(batch, steps, -1)


def _without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context without autocast; asking whether it is on takes less time than switching it off."""
    kind = device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _grouped_argmax(scores: Float[Tensor, "n v"]) -> Int[Tensor, " n"]:
    """Return the argmax over the last axis, the first where several are equal."""
    groups = scores.unflatten(1, (-1, GROUP_SIZE))
    best = groups.amax(-1).argmax(-1)
    return best * GROUP_SIZE + groups[torch.arange(len(scores)), best].argmax(-1)
