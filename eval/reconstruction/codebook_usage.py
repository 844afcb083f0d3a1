"""Measure how much of its codebooks a codec uses; unused codes cost as many bits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True, kw_only=True)
class CodebookUse:
    """The usage of one codebook over all frames of a test set."""

    used: float
    """Share of its codes that occurred."""
    entropy: float
    """bits; at most log2 of the number of codes, and of the number of frames."""

    @property
    def perplexity(self) -> float:
        """The number of equally likely codes that have this entropy."""
        return 2**self.entropy


def codebook_use(codes: Sequence[Int[np.ndarray, "t k"]], codebook_size: int) -> list[CodebookUse]:
    """Measure the usage of each codebook over all recordings.

    Args:
        codes: The codes [t, k] of each recording.
        codebook_size: The number of codes in a codebook.

    Returns:
        The usage of each of the k codebooks.
    """
    found = []
    for column in np.concatenate(codes).T:
        counts = np.bincount(column, minlength=codebook_size)
        share = counts[counts > 0] / counts.sum()
        found.append(CodebookUse(used=len(share) / codebook_size, entropy=float(0 - share @ np.log2(share))))
    return found


def bitrate_efficiency(uses: Sequence[CodebookUse], codebook_size: int) -> float:
    """Return the entropy of all codebooks over all bits that are sent (how DAC measures it).

    Args:
        uses: The usage of each codebook.
        codebook_size: The number of codes in a codebook.

    Returns:
        A share, at most 1.
    """
    return sum(use.entropy for use in uses) / (len(uses) * float(np.log2(codebook_size)))
