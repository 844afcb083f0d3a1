"""How much of each corpus an epoch holds: small corpora more often, large ones in part."""

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
    """Weights of corpora, stored beside the code shards as `mixture.json`. The default is all as it is."""

    weights: dict[str, float] = field(default_factory=dict)
    """By source, times its size; 1 where none is given, 0 leaves a corpus out."""
    temperature: float = 1.0
    """Shares go with size to the power of 1 / temperature: 1 is proportional, large is equal."""

    def __post_init__(self) -> None:
        if self.temperature < 1:
            raise ValueError(f"temperature={self.temperature}: give 1 or more, where 1 is proportional")
        if bad := {name: weight for name, weight in self.weights.items() if not 0 <= weight < np.inf}:
            raise ValueError(f"weights {bad}: give 0 or more")


def mixture(counts: Mapping[str, float], chosen: Mixture) -> dict[str, float]:
    """The part of each corpus in what is drawn, given the corpora's sizes in frames, hours or the like."""
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
    """Which utterances an epoch holds, in random order: about as many frames as there are, mixed as chosen.

    Each corpus is gone through without repetition until its end, wherever an epoch ends, then anew in
    another order: after any number of epochs its utterances have been heard equally often, or once more.
    A function of (seed, epoch) and the corpora alone, so that a resumed run needs no state.
    """
    names, inverse = np.unique(np.asarray(sources), return_inverse=True)
    by_source = [np.flatnonzero(inverse == i) for i in range(len(names))]
    sizes = {str(name): int(frames[own].sum()) for name, own in zip(names, by_source, strict=True)}
    shares, drawn = mixture(sizes, chosen), []
    for name, own in zip(map(str, names), by_source, strict=True):
        wanted = shares[name] * sum(sizes.values()) * len(own) / sizes[name] if sizes[name] else 0.0
        first, last = round(epoch * wanted), round((epoch + 1) * wanted)
        key = (seed, zlib.crc32(name.encode()))
        for turn in range(first // len(own), -(-last // len(own))):
            order = np.random.default_rng((*key, turn)).permutation(own)
            start = turn * len(own)
            drawn.append(order[max(0, first - start) : last - start])
    return np.random.default_rng((seed, epoch)).permutation(np.concatenate(drawn))


def read_mixture(folder: Path) -> Mixture:
    """What was chosen for the shards of a folder, or the default."""
    path = folder / MIXTURE
    return read_config(Mixture, path) if path.exists() else Mixture()


def write_mixture(folder: Path, chosen: Mixture) -> None:
    """Choose the mixture of a folder of shards."""
    write_config(folder / MIXTURE, chosen)
