"""Seeds of retries, best-of-N candidates and segments, derived from the seed that the user gives."""

import hashlib


def derived_seed(seed: int, *path: int) -> int:
    """Derive another seed for every path of indices.

    Args:
        seed: The seed that the user gave.
        path: Indices such as the number of a segment, of an attempt, or of a candidate.

    Returns:
        A signed 64-bit seed that depends on `seed` and `path` alone; `seed` itself where all indices are 0.
    """
    if not any(path):
        return seed
    digest = hashlib.sha256(repr((seed, path)).encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)
