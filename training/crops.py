"""Random crops of the clips of a manifest, each a function of (seed, index) alone."""

from pathlib import Path

import numpy as np
import soundfile
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from tokenizer.audio import load_audio
from training.manifest import Clip


class RandomCrops(Dataset):
    """Item i is a crop of a clip drawn in proportion to its duration; shorter clips end in silence.

    Because an item depends on nothing but (seed, i), a resumed run sees exactly the crops that an
    uninterrupted one would have seen, whatever the number of workers.
    """

    def __init__(self, clips: list[Clip], samples: int, sample_rate: int, seed: int, items: int) -> None:
        if not clips:
            raise ValueError("the manifest holds no clips: nothing to train on")
        self.clips, self.samples, self.sample_rate = clips, samples, sample_rate
        self.seed, self.items = seed, items
        self.edges = np.cumsum([clip.duration for clip in clips])

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, index: int) -> Float[Tensor, " s"]:
        draw = np.random.default_rng((self.seed, index))
        clip = self.clips[int(np.searchsorted(self.edges, draw.random() * self.edges[-1], side="right"))]
        room = max(0, round(clip.duration * self.sample_rate) - self.samples)
        first = int(draw.integers(0, room + 1))
        crop = _read(clip.audio, first, self.samples, self.sample_rate)
        padded = torch.zeros(self.samples)
        padded[: len(crop)] = crop
        return padded


def _read(path: Path, first: int, samples: int, sample_rate: int) -> Float[Tensor, " s"]:
    """A part of a file: by seeking where the file has the wanted format, else out of the whole."""
    with soundfile.SoundFile(path) as file:
        if file.samplerate == sample_rate and file.channels == 1:
            file.seek(min(first, file.frames))
            return torch.from_numpy(file.read(samples, dtype="float32")).clamp(-1, 1)
    return load_audio(path, sample_rate)[first : first + samples]
