"""Seeds of attempts, candidates and segments, derived from the one that a user gives."""

import hashlib


def derived_seed(seed: int, *path: int) -> int:
    """Another seed for every path of counts; the seed itself where all are 0."""
    if not any(path):
        return seed
    digest = hashlib.sha256(repr((seed, path)).encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)
