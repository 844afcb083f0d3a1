"""Codebook rows that nothing is near are moved to where something is.

With batches as small as one machine's, most rows of a codebook are never the nearest and so never learn: the
codes then carry a quarter of their bits. The paper's batches of 1,536 items need no such help.
"""

from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from jaxtyping import Float, Int
from torch import Tensor

from tokenizer.layers.quantizer import ResidualVQ
from training.common.run import key

EVERY = 10
"""Steps between two revivals."""
MEMORY = 0.98
"""Decay of how often a row was chosen."""
UNUSED, REVIVED = 0.1, 0.4
"""Shares, where 1 is an even one, below which a row is moved, and that it is given then."""


class Revival:
    """Remembers how much each row of a quantizer is used; lives as long as a training."""

    def __init__(self, quantizer: ResidualVQ, accelerator: Accelerator, seed: int) -> None:
        if accelerator.is_fsdp2:
            raise ValueError(
                "revive moves whole codebooks and FSDP2 splits them: give revive=False, or use DDP"
            )
        self.codebooks = [layer.codebook.weight for layer in quantizer.layers]
        self.accelerator, self.seed = accelerator, seed
        self.shares = torch.ones(len(self.codebooks), len(self.codebooks[0]))

    @torch.no_grad()
    def update(self, step: int, codes: Int[Tensor, "b t k"], low: Float[Tensor, "b t k l"]) -> None:
        """Count the step's codes; every few steps put some of the vectors `low` in place of unused rows.

        At most half as many rows of a codebook as there are vectors: what moves at once should not meet.
        """
        count, size = self.shares.shape
        places = codes.flatten(0, -2).cpu() + size * torch.arange(count)
        chosen = torch.bincount(places.flatten(), minlength=count * size).view(count, size).float()
        chosen = cast(Tensor, self.accelerator.reduce(chosen.to(self.accelerator.device), "sum")).cpu()
        self.shares.lerp_(chosen * size / chosen.sum(1, keepdim=True), 1 - MEMORY)
        if step % EVERY:
            return
        low = cast(Tensor, broadcast(low.contiguous())).flatten(0, -3)
        draw = torch.Generator().manual_seed(key(self.seed, step))
        for shares, codebook, vectors in zip(self.shares, self.codebooks, low.unbind(1), strict=True):
            unused = (shares < UNUSED).nonzero().squeeze(1)
            some = torch.randperm(len(unused), generator=draw)[: len(vectors) // 2]
            source = torch.randperm(len(vectors), generator=draw)[: len(some)]
            codebook[unused[some].to(codebook.device)] = vectors[source.to(vectors.device)]
            shares[unused[some]] = REVIVED

    def state_dict(self) -> dict[str, Tensor]:
        return {"shares": self.shares}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.shares.copy_(state["shares"])
