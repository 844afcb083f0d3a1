"""How long the tokens of a text usually are, from nothing but whole utterances and their lengths."""

from collections.abc import Sequence

import numpy as np

PRIOR = 20.0
"""A token is taken to be as long as the others are on average until about so many frames speak against it."""
SHORTEST = 0.05
"""Frames; none takes no time."""


def usual_frames(
    ids: Sequence[Sequence[int]], frames: Sequence[int], speakers: Sequence[str], vocab_size: int
) -> tuple[float, ...]:
    """Frames that each text id takes, such that the sums over utterances come close to their `frames`.

    Least squares of what is left when slow and fast speakers are brought to one pace, with a prior for tokens
    that are rare. What belongs to no token, like the silence before the first, falls to those that are always
    there: the final stop.
    """
    tokens = np.maximum([len(one) for one in ids], 1)
    _, speaker = np.unique(np.asarray(speakers), return_inverse=True)
    mean = float(np.sum(frames) / tokens.sum())
    pace = np.bincount(speaker, np.asarray(frames, np.float64)) / np.bincount(speaker, tokens) / mean
    length = np.maximum(frames / pace[speaker], 1)
    gram, rest = np.eye(vocab_size) * PRIOR / mean, np.zeros(vocab_size)
    for one, own in zip(ids, length, strict=True):
        found, counts = np.unique(np.asarray(one, np.int64), return_counts=True)
        gram[np.ix_(found, found)] += np.outer(counts, counts) / own
        rest[found] += counts * (own - mean * len(one)) / own
    return tuple(np.round((mean + np.linalg.solve(gram, rest)).clip(min=SHORTEST), 3).tolist())
