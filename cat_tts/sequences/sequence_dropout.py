"""Progressive Sequence Dropout (paper 3.3): each training sample keeps a random prefix of its codebooks."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from cat_tts.sequences.rows import IGNORED


def sample_depths(
    batch: int,
    num_codebooks: int,
    p: float,
    generator: torch.Generator,
    *,
    lowest: int = 1,
    highest: int | None = None,
) -> Int[Tensor, " b"]:
    """K-hat of eq. 7: with probability `p` uniform on `lowest` .. `highest`, else all codebooks.

    The paper draws from 1 .. K-1, which with p = 1 would never train the last codebook; by default the
    draw is from 1 .. K.
    """
    highest = num_codebooks if highest is None else highest
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"p={p} is no probability: give 0 to 1")
    if not 1 <= lowest <= highest <= num_codebooks:
        raise ValueError(f"depths from {lowest} to {highest}: give a range within 1 .. {num_codebooks}")
    dropped = torch.rand(batch, generator=generator) < p
    prefix = torch.randint(lowest, highest + 1, (batch,), generator=generator)
    return torch.where(dropped, prefix, num_codebooks)


def kept_codes(targets: Int[Tensor, "b t c"], depth: Int[Tensor, " b"]) -> Int[Tensor, "b t"]:
    """How many codes of each target row are learnt: of a frame those of the sample's depth, else none."""
    return (targets[..., 1:] != IGNORED).cumprod(-1).sum(-1).minimum(depth[:, None])


def deep_frames(
    targets: Int[Tensor, "b t c"], part: float, generator: torch.Generator
) -> Bool[Tensor, "b t"]:
    """A random part of the target frames, at least one: those whose codebooks beyond the first are learnt.

    CSM learns them on one frame in sixteen: neighbouring frames say much the same about deep codebooks.
    """
    if not 0.0 < part <= 1.0:
        raise ValueError(f"part={part} of the frames: give more than 0, at most 1")
    frames = (targets[..., 1] != IGNORED).flatten().nonzero().flatten()
    chosen = torch.randperm(len(frames), generator=generator)[: max(1, round(part * len(frames)))]
    deep = torch.zeros(targets.shape[:2], dtype=torch.bool)
    deep.view(-1)[frames[chosen]] = True
    return deep
