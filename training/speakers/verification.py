"""Speaker verification: the equal error rate of all pairs of utterances."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def equal_error_rate(same: Float[Tensor, " n"], different: Float[Tensor, " m"]) -> float:
    """Compute the equal error rate, where the rates of false rejections and false acceptances are equal.

    Args:
        same: Scores of pairs of one speaker; higher is more alike.
        different: Scores of pairs of two speakers.

    Returns:
        The mean of both rates, 0 to 1, at the threshold where they are nearest to each other.

    Raises:
        ValueError: There is no pair of a kind.
    """
    if not len(same) or not len(different):
        raise ValueError(f"{len(same)} pairs of one speaker and {len(different)} of two: give some of both")
    thresholds = torch.cat([same, different]).unique()
    thresholds = torch.cat([thresholds, thresholds[-1:] + 1])
    rejected = torch.searchsorted(same.sort().values, thresholds, side="left") / len(same)
    accepted = 1 - torch.searchsorted(different.sort().values, thresholds, side="left") / len(different)
    best = (rejected - accepted).abs().argmin()
    return float(rejected[best] + accepted[best]) / 2


def verify(vectors: Float[Tensor, "n v"], speakers: Sequence[str]) -> dict[str, float]:
    """Compare all pairs of utterances.

    Args:
        vectors: Vector of each utterance, of length 1.
        speakers: Speaker of each utterance.

    Returns:
        The equal error rate (`eer`), and the mean cosine of pairs of one speaker and of two (`same`,
        `different`).

    Raises:
        ValueError: No speaker has two utterances, or there is only one speaker.
    """
    scores = vectors @ vectors.T
    names = sorted(set(speakers))
    numbers = torch.tensor([names.index(speaker) for speaker in speakers])
    pairs = torch.ones(len(scores), len(scores), dtype=torch.bool).triu(1)
    alike = numbers[:, None] == numbers
    same, different = scores[pairs & alike], scores[pairs & ~alike]
    rate = equal_error_rate(same, different)
    return {"eer": rate, "same": float(same.mean()), "different": float(different.mean())}
