"""Durations of text tokens, estimated from whole utterances and their lengths alone."""

from collections.abc import Sequence

import numpy as np

PRIOR_FRAMES = 20.0
"""Frames of a prior that a token is as long as the average token."""
MIN_FRAMES = 0.05
"""Shortest duration of a token."""


def usual_frames(
    ids: Sequence[Sequence[int]], frames: Sequence[int], speakers: Sequence[str], vocab_size: int
) -> tuple[float, ...]:
    """Estimate the frames that each text id takes, such that the sums over utterances are close to `frames`.

    The estimate is least squares after slow and fast speakers are brought to one speaking rate, with a prior
    for rare tokens. Time that belongs to no token, like the silence before the first, falls to those that are
    in every text: the final stop.

    Args:
        ids: Text ids of each utterance.
        frames: Its length.
        speakers: Its speaker.
        vocab_size: Number of ids.

    Returns:
        Frames of each id, at least `MIN_FRAMES`.
    """
    tokens = np.maximum([len(utterance) for utterance in ids], 1)
    _, speaker = np.unique(np.asarray(speakers), return_inverse=True)
    mean = float(np.sum(frames) / tokens.sum())
    rate = np.bincount(speaker, np.asarray(frames, np.float64)) / np.bincount(speaker, tokens) / mean
    length = np.maximum(frames / rate[speaker], 1)
    gram, rest = np.eye(vocab_size) * PRIOR_FRAMES / mean, np.zeros(vocab_size)
    for utterance, duration in zip(ids, length, strict=True):
        found, counts = np.unique(np.asarray(utterance, np.int64), return_counts=True)
        gram[np.ix_(found, found)] += np.outer(counts, counts) / duration
        rest[found] += counts * (duration - mean * len(utterance)) / duration
    return tuple(np.round((mean + np.linalg.solve(gram, rest)).clip(min=MIN_FRAMES), 3).tolist())
