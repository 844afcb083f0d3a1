"""The quantizer as inference wants it: all that is the same for every frame is computed beforehand.

A `Search` finds codes, a `Lookup` reads them. They are made from the weights of a ResidualVQ for one call,
or once for a stream, and never kept beside the weights: there is nothing that could be stale.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

MANY_FRAMES, GROUP = 16, 32
"""From so many frames on, a CPU finds the best of many scores faster in groups of so many."""


@dataclass(frozen=True)
class Projection:
    """x -> x @ weight + bias, weight norm folded in."""

    weight: Float[Tensor, "*k i o"]
    bias: Float[Tensor, "*k o"]

    def __call__(self, x: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        return torch.addmm(self.bias, x, self.weight)


@dataclass(frozen=True)
class Search:
    """Residual quantisation that never forms a residual.

    The residual is only ever looked at through the levels' projections to a few dimensions. So all of them
    are applied to the input at once, and each chosen row is subtracted as the later levels would see it.
    """

    project_in: Projection
    lows: Projection
    """To what all levels would see, side by side, if no row were chosen before them."""
    directions: list[Float[Tensor, "l v"]]
    """By level: the normalised rows of the codebook, as columns."""
    shades: list[Float[Tensor, "v rest"]]
    rows: list[Float[Tensor, "v l"]]

    @classmethod
    def of(cls, project_in: Projection, ins: Projection, outs: Projection, rows: Tensor) -> "Search":
        """From the projection to the residual's width, those of all levels, and all codebooks [k, v, l]."""
        levels, width, low = ins.weight.shape
        before = outs.bias.cumsum(0) - outs.bias  # what the earlier levels' biases take away
        bias = ins.bias - (before[:, None] @ ins.weight).squeeze(1)
        weight = ins.weight.transpose(0, 1).reshape(width, levels * low)
        shades = outs.weight.flatten(0, 1) @ weight
        return cls(
            project_in=project_in,
            lows=Projection(weight, bias.flatten()),
            directions=list(F.normalize(rows, dim=-1).mT.contiguous()),
            shades=[shade[:, (k + 1) * low :] for k, shade in enumerate(shades.split(low))],
            rows=list(rows),
        )

    def __call__(self, x: Float[Tensor, "b t d"], depth: int) -> Int[Tensor, "b t k"]:
        """Codes of the first `depth` codebooks: exactly the first columns of the full encoding."""
        low, size = self.directions[0].shape
        many = x.device.type == "cpu" and x.shape[0] * x.shape[1] >= MANY_FRAMES and size % GROUP == 0
        with _without_autocast(x.device):
            lows, codes = self.lows(self.project_in(x.float().flatten(0, 1))), []
            for k in range(depth):
                own, later = lows[:, k * low : (k + 1) * low], lows[:, (k + 1) * low :]
                scores = own @ self.directions[k]
                code = _best_of_groups(scores) if many else scores.argmax(-1)
                later.addmm_(self.rows[k].index_select(0, code), self.shades[k], alpha=-1)
                codes.append(code)
            return torch.stack(codes, -1).view(*x.shape[:2], depth)


@dataclass(frozen=True)
class Lookup:
    """The sum of the projected rows that codes stand for, projected."""

    levels: Int[Tensor, " k"]
    """0, 1, ... k - 1."""
    rows: Float[Tensor, "k v l"]
    project: Float[Tensor, "kl r"]
    """The chosen rows of all levels, side by side, to the sum of their projections."""
    biases: Float[Tensor, "depths r"]
    """The sum of the biases of the first 0, 1, ... k levels."""
    project_out: Projection | None

    @classmethod
    def of(cls, outs: Projection, rows: Tensor, project_out: Projection) -> "Lookup":
        """From the projections of all levels, all codebooks [k, v, l], and the projection to latents."""
        biases = F.pad(outs.bias.cumsum(0), (0, 0, 1, 0))
        levels = torch.arange(len(rows), device=rows.device)
        return cls(levels, rows, outs.weight.flatten(0, 1), biases, project_out)

    def folded(self) -> "Lookup":
        """The same with both projections in one: worth its price for a stream, not for one call."""
        if self.project_out is None:
            return self
        with _without_autocast(self.rows.device):
            project = self.project @ self.project_out.weight
            return replace(self, project=project, biases=self.project_out(self.biases), project_out=None)

    def __call__(
        self, codes: Int[Tensor, "b t k"], depth: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """Latents of the first k codebooks, or of row i's first `depth[i]`: nothing stands in for others."""
        batch, steps, columns = codes.shape
        levels = self.levels[:columns]
        with _without_autocast(codes.device):
            if depth is None:
                chosen, bias = self.rows[levels, codes], self.biases[columns]
            else:
                used = (levels < depth[:, None])[:, None]  # [b, 1, k]
                chosen = self.rows[levels, codes.where(used, 0)] * used[..., None]
                bias = self.biases[depth].repeat_interleave(steps, 0)
            chosen = chosen.reshape(batch * steps, -1)
            latents = torch.addmm(bias, chosen, self.project[: chosen.shape[1]])
            if self.project_out is not None:
                latents = self.project_out(latents)
            return latents.view(batch, steps, -1)


def _without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Usually there is nothing to do, and to know that takes less time than to do it."""
    kind = device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _best_of_groups(scores: Float[Tensor, "n v"]) -> Int[Tensor, " n"]:
    """argmax, the first where several are equal."""
    groups = scores.unflatten(1, (-1, GROUP))
    best = groups.amax(-1).argmax(-1)
    return best * GROUP + groups[torch.arange(len(scores)), best].argmax(-1)
