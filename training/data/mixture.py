"""Mix corpora: an epoch can repeat small corpora, and hold large ones in part."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int

from tokenizer.io.checkpoint import read_config, write_config

MIXTURE = "mixture.json"


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Weights of corpora, stored beside the code shards as `mixture.json`; by default sizes decide alone."""

    weights: dict[str, float] = field(default_factory=dict)
    """By source: a factor of its size; 1 where none is given, 0 leaves a corpus out."""
    temperature: float = 1.0
    """Shares are proportional to size to the power of 1 / temperature: a large temperature makes them
    equal."""

    def __post_init__(self) -> None:
        if self.temperature < 1:
            raise ValueError(f"temperature={self.temperature}: give 1 or more, where 1 is proportional")
        if bad := {name: weight for name, weight in self.weights.items() if not 0 <= weight < np.inf}:
            raise ValueError(f"weights {bad}: give 0 or more")


def mixture(counts: Mapping[str, float], chosen: Mixture) -> dict[str, float]:
    """Return the share of each corpus in a mixture; shares add up to 1.

    Args:
        counts: the corpora's sizes in frames, hours or the like, by name.
        chosen: weights and temperature.

    Raises:
        ValueError: a weight is for a corpus that is not there, or the weights leave nothing.
    """
    if unknown := sorted(chosen.weights.keys() - counts.keys()):
        raise ValueError(f"weights for {', '.join(unknown)}: the corpora are {', '.join(sorted(counts))}")
    largest = max(counts.values(), default=0)
    parts = {
        name: chosen.weights.get(name, 1.0) * (count / largest) ** (1 / chosen.temperature) if count else 0.0
        for name, count in counts.items()
    }
    total = sum(parts.values())
    if not total > 0:
        raise ValueError(
            f"weights {chosen.weights} leave nothing of {', '.join(sorted(counts)) or 'nothing'}"
        )
    return {name: part / total for name, part in parts.items()}


def epoch_indices(
    sources: Sequence[str], frames: Int[np.ndarray, " n"], chosen: Mixture, *, seed: int, epoch: int
) -> Int[np.ndarray, " m"]:
    """Return which utterances an epoch holds, in random order: about as many frames as there are in all.

    Each corpus is gone through without repetition until its end, across epochs, then again in another order:
    after any number of epochs its utterances have been used equally often, up to one. The result is a
    function of (seed, epoch) and the corpora alone, so that a resumed run needs no state.

    Args:
        sources: the corpus of each utterance.
        frames: the length of each utterance [n], in frames.
        chosen: the mixture.
        seed: the run's seed.
        epoch: the epoch's number, from 0.

    Returns:
        Indices of utterances [m].
    """
    names, inverse = np.unique(np.asarray(sources), return_inverse=True)
    by_source = [np.flatnonzero(inverse == i) for i in range(len(names))]
    sizes = {str(name): int(frames[members].sum()) for name, members in zip(names, by_source, strict=True)}
    shares, drawn = mixture(sizes, chosen), []
    for name, members in zip(map(str, names), by_source, strict=True):
        wanted = shares[name] * sum(sizes.values()) * len(members) / sizes[name] if sizes[name] else 0.0
        first, last = round(epoch * wanted), round((epoch + 1) * wanted)
        key = (seed, zlib.crc32(name.encode()))
        for turn in range(first // len(members), -(-last // len(members))):
            order = np.random.default_rng((*key, turn)).permutation(members)
            start = turn * len(members)
            drawn.append(order[max(0, first - start) : last - start])
    return np.random.default_rng((seed, epoch)).permutation(np.concatenate(drawn))


def read_mixture(folder: Path) -> Mixture:
    """Read the mixture of a folder of shards; the default if none is stored."""
    path = folder / MIXTURE
    return read_config(Mixture, path) if path.exists() else Mixture()


def write_mixture(folder: Path, chosen: Mixture) -> None:
    """Store the mixture of a folder of shards."""
    write_config(folder / MIXTURE, chosen)
