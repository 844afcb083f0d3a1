"""Progressive Sequence Dropout (paper 3.3): each training sample keeps a random prefix of its codebooks."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def sample_depths(
    batch: int, num_codebooks: int, p: float, generator: torch.Generator, *, reach_last: bool = True
) -> Int[Tensor, " b"]:
    """K-hat of eq. 7: with probability `p` uniform, else all codebooks.

    The paper draws from 1 .. K-1, which with p = 1 would never train the last codebook; by default the
    draw is from 1 .. K. `reach_last=False` is the paper's rule.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"p={p} is no probability: give 0 to 1")
    dropped = torch.rand(batch, generator=generator) < p
    prefix = torch.randint(1, num_codebooks + int(reach_last), (batch,), generator=generator)
    return torch.where(dropped, prefix, num_codebooks)


def prefix_mask(depth: Int[Tensor, " b"], num_codebooks: int) -> Bool[Tensor, "b k"]:
    """True for the codebooks that a sample keeps."""
    return torch.arange(num_codebooks, device=depth.device) < depth[:, None]
