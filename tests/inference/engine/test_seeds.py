"""Seeds of attempts, candidates and segments."""

from inference.engine.seeds import derived_seed


def test_derived_seeds() -> None:
    """Seeds are all different, fit any generator, and are the same on every machine."""
    paths = [(n, m) for n in range(30) for m in range(30)]
    seeds = {derived_seed(seed, *path) for seed in (0, 1, -(2**63)) for path in paths}
    assert len(seeds) == 3 * 900 and all(-(2**63) <= seed < 2**63 for seed in seeds)
    assert derived_seed(5) == derived_seed(5, 0, 0) == 5
    assert derived_seed(5, 1) == 5_396_413_017_056_747_871
