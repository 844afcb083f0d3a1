"""Dead-code reset: codebook rows that are never the nearest are moved to vectors of the batch.

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

RESET_INTERVAL = 10
"""Steps between two resets."""
USAGE_DECAY = 0.98
"""Decay of the running share of a row."""
DEAD_THRESHOLD, RESET_SHARE = 0.1, 0.4
"""The share below which a row is moved, and the share it has then; 1 is that of a row used as often as all
others."""


class DeadCodeReset:
    """Running shares of each codebook row of a quantizer, and the reset of unused rows."""

    def __init__(self, quantizer: ResidualVQ, accelerator: Accelerator, seed: int) -> None:
        if accelerator.is_fsdp2:
            raise ValueError(
                "reset_dead_codes moves whole codebooks and FSDP2 splits them: "
                "give --no-reset-dead-codes, or use DDP"
            )
        self.codebooks = [layer.codebook.weight for layer in quantizer.layers]
        self.accelerator, self.seed = accelerator, seed
        self.shares = torch.ones(len(self.codebooks), len(self.codebooks[0]))

    @torch.no_grad()
    def update(self, step: int, codes: Int[Tensor, "b t k"], low: Float[Tensor, "b t k l"]) -> None:
        """Count the codes of a step; every `RESET_INTERVAL` steps put vectors in place of unused rows.

        At most half as many rows of a codebook move as there are vectors, so that no two move to one place.

        Args:
            step: Steps that have been made.
            codes: The step's codes.
            low: The projected residuals that became these codes.
        """
        count, size = self.shares.shape
        indices = codes.flatten(0, -2).cpu() + size * torch.arange(count)
        chosen = torch.bincount(indices.flatten(), minlength=count * size).view(count, size).float()
        chosen = cast(Tensor, self.accelerator.reduce(chosen.to(self.accelerator.device), "sum")).cpu()
        self.shares.lerp_(chosen * size / chosen.sum(1, keepdim=True), 1 - USAGE_DECAY)
        if step % RESET_INTERVAL:
            return
        low = cast(Tensor, broadcast(low.contiguous())).flatten(0, -3)
        draw = torch.Generator().manual_seed(key(self.seed, step))
        for shares, codebook, vectors in zip(self.shares, self.codebooks, low.unbind(1), strict=True):
            unused = (shares < DEAD_THRESHOLD).nonzero().squeeze(1)
            some = torch.randperm(len(unused), generator=draw)[: len(vectors) // 2]
            source = torch.randperm(len(vectors), generator=draw)[: len(some)]
            codebook[unused[some].to(codebook.device)] = vectors[source.to(vectors.device)]
            shares[unused[some]] = RESET_SHARE

    def state_dict(self) -> dict[str, Tensor]:
        """Return the running shares, for a checkpoint."""
        return {"shares": self.shares}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over the running shares of a checkpoint."""
        self.shares.copy_(state["shares"])
