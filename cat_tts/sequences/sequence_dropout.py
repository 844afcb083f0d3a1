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
    """Draw the depth of each sample (K-hat of paper eq. 7).

    The paper draws from 1 .. K-1, which with p = 1 would never train the last codebook; by default the
    draw is from 1 .. K.

    Args:
        batch: Number of samples b.
        num_codebooks: K, the depth of samples that drop nothing.
        p: Probability that a sample keeps a prefix of its codebooks only.
        generator: Source of the draws.
        lowest: Least depth of a prefix.
        highest: Largest depth of a prefix; None: K.

    Returns:
        Depths [b]: with probability `p` uniform on `lowest` .. `highest`, else K.

    Raises:
        ValueError: `p` is no probability, or the range is not within 1 .. K.
    """
    highest = num_codebooks if highest is None else highest
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"p={p} is no probability: give 0 to 1")
    if not 1 <= lowest <= highest <= num_codebooks:
        raise ValueError(f"depths from {lowest} to {highest}: give a range within 1 .. {num_codebooks}")
    dropped = torch.rand(batch, generator=generator) < p
    prefix = torch.randint(lowest, highest + 1, (batch,), generator=generator)
    return torch.where(dropped, prefix, num_codebooks)


def retained_codes(targets: Int[Tensor, "b t c"], depth: Int[Tensor, " b"]) -> Int[Tensor, "b t"]:
    """Count the codes of each target row that are learnt: in a frame as many as the depth, else none.

    Args:
        targets: Targets [b, t, 1 + K], `IGNORED` where nothing is learnt.
        depth: Depth [b] of each sample.

    Returns:
        Counts [b, t].
    """
    return (targets[..., 1:] != IGNORED).cumprod(-1).sum(-1).minimum(depth[:, None])


def deep_frames(
    targets: Int[Tensor, "b t c"], part: float, generator: torch.Generator
) -> Bool[Tensor, "b t"]:
    """Draw the target frames on which codebooks beyond the first are learnt, at least one.

    CSM learns them on one frame in sixteen: neighbouring frames say much the same about deep codebooks.

    Args:
        targets: Targets [b, t, 1 + K], `IGNORED` where nothing is learnt.
        part: Part of the frames of the whole batch to draw.
        generator: Source of the draw.

    Returns:
        A mask [b, t], True on the drawn frames.

    Raises:
        ValueError: `part` is not above 0 and at most 1.
    """
    if not 0.0 < part <= 1.0:
        raise ValueError(f"part={part} of the frames: give more than 0, at most 1")
    frames = (targets[..., 1] != IGNORED).flatten().nonzero().flatten()
    chosen = torch.randperm(len(frames), generator=generator)[: max(1, round(part * len(frames)))]
    deep = torch.zeros(targets.shape[:2], dtype=torch.bool)
    deep.view(-1)[frames[chosen]] = True
    return deep
