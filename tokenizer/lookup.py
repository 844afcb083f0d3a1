"""The quantizer's weights in the form that inference wants: everything that is the same every time, done."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


class Level(NamedTuple):
    """One codebook and its projections, weight norm folded in."""

    in_weight: Float[Tensor, "l r"]
    in_bias: Float[Tensor, " l"]
    directions: Float[Tensor, "l v"]
    """Normalised rows of the codebook, as columns."""
    rows: Float[Tensor, "v l"]
    out_weight: Float[Tensor, "r l"]
    out_bias: Float[Tensor, " r"]


@dataclass(frozen=True)
class Lookup:
    """A ResidualVQ as it was when this was made (by `ResidualVQ.lookup`); always float32.

    It is made for each call, or once for a stream, and never kept beside the weights: nothing to be stale.
    """

    project_in: Float[Tensor, "r d"]
    project_in_bias: Float[Tensor, " r"]
    levels: list[Level]
    rows: Float[Tensor, "k v l"]
    sum_rows: Float[Tensor, "kl d"]
    """From the chosen rows of all codebooks, side by side, to latents: both output projections in one."""
    sum_bias: Float[Tensor, "depths d"]
    """What the biases of the first 0, 1, ... k codebooks add to the latents."""

    def encode(self, x: Float[Tensor, "b t d"], depth: int) -> Int[Tensor, "b t k"]:
        """Codes of the first `depth` codebooks: exactly the first columns of the full encoding."""
        with torch.autocast(x.device.type, enabled=False):
            residual, codes = F.linear(x.float(), self.project_in, self.project_in_bias), []
            for level in self.levels[:depth]:
                low = F.linear(residual, level.in_weight, level.in_bias)
                code = (low @ level.directions).argmax(-1)
                row = F.embedding(code, level.rows)
                residual = residual - F.linear(row, level.out_weight, level.out_bias)
                codes.append(code)
            return torch.stack(codes, -1)

    def decode(
        self, codes: Int[Tensor, "b t k"], depth: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """Latents of the first k codebooks, or of row i's first `depth[i]`: nothing stands in for others."""
        columns = codes.shape[-1]
        level = torch.arange(columns, device=codes.device)
        with torch.autocast(codes.device.type, enabled=False):
            if depth is None:
                chosen, bias = self.rows[level, codes], self.sum_bias[columns]
            else:
                used = (level < depth[:, None])[:, None]  # [b, 1, k]
                chosen = self.rows[level, codes.where(used, 0)] * used[..., None]
                bias = self.sum_bias[depth][:, None]
            return chosen.flatten(-2) @ self.sum_rows[: columns * self.rows.shape[-1]] + bias
