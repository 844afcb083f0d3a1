"""Encoded utterances with their transcripts, in memory: batches for the training of CAT-ASR."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from cat_tts.asr.model import pad_texts
from cat_tts.sequences.rows import IGNORED
from cat_tts.text.tokenizers import TextTokenizer
from training.data.code_shards import Codes

NEIGHBOURS = 4
"""A batch is drawn from so many times its size of utterances of like length."""
STRETCH = 4
"""Frames in a row that are heard wrongly: 0.3 s, about a word."""


@dataclass(frozen=True)
class SpokenBatch:
    """Padded on the right: codes with zeros, texts with `IGNORED`."""

    codes: Int[Tensor, "b t k"]
    frames: Int[Tensor, " b"]
    text: Int[Tensor, "b n"]
    spelt: Int[Tensor, "b m"]
    """What the second head has to find."""

    def to(self, device: torch.device) -> "SpokenBatch":
        return SpokenBatch(
            self.codes.to(device), self.frames.to(device), self.text.to(device), self.spelt.to(device)
        )


class Transcribed:
    """Utterances sorted by their length. Codes lie in one array: an hour of 12 codebooks takes 1 MB."""

    def __init__(self, codes: list[np.ndarray], texts: list[list[int]], spelt: list[list[int]]) -> None:
        order = np.argsort([len(one) for one in codes], kind="stable").tolist()
        self.codes = [codes[i] for i in order]
        self.texts = [texts[i] for i in order]
        self.spelt = [spelt[i] for i in order]
        self.frames = np.array([len(one) for one in self.codes])
        self.rows = self.frames + np.array([len(text) for text in self.texts]) + 2

    @classmethod
    def read(
        cls, codes: Codes, tokenizer: TextTokenizer, max_frames: int, spell: Callable[[str], list[int]]
    ) -> "Transcribed":
        """Those of at most `max_frames`; `spell` is the model's."""
        found: list[np.ndarray] = []
        texts: list[list[int]] = []
        spelt: list[list[int]] = []
        for row in codes:
            if row["frames"] <= max_frames:
                found.append(np.array(row["codes"], dtype=np.int16))
                texts.append(tokenizer.encode(row["text"]))
                spelt.append(spell(row["text"]))
        if not found:
            raise ValueError(f"no utterance has at most {max_frames} frames: nothing to train on")
        return cls(found, texts, spelt)

    def __len__(self) -> int:
        return len(self.codes)

    def split(self, kept_out: int, seed: int) -> "tuple[Transcribed, Transcribed]":
        """The rest, and `kept_out` utterances at random; texts of these are nowhere in the rest."""
        chosen = np.random.default_rng(seed).permutation(len(self))[:kept_out].tolist()
        secret = {tuple(self.spelt[i]) for i in chosen}
        rest = [i for i in range(len(self)) if tuple(self.spelt[i]) not in secret]
        if not rest:
            raise ValueError(f"all {len(self)} utterances say what the {kept_out} kept out say")
        return self._only(rest), self._only(chosen)

    def batch(self, draw: torch.Generator, rows: int, longest: int) -> SpokenBatch:
        """Utterances of like length, each of at most `longest` frames where there are any so short."""
        usable = max(1, int(np.searchsorted(self.frames, longest, side="right")))
        centre = int(torch.randint(usable, (), generator=draw))
        size = max(1, rows // int(self.rows[centre]))
        low = max(0, min(centre - NEIGHBOURS * size // 2, usable - NEIGHBOURS * size))
        window = np.arange(low, min(usable, low + NEIGHBOURS * size))
        picked = window[torch.randperm(len(window), generator=draw)[:size].numpy()]
        most = int(self.rows[picked].max())
        return self.collate(picked[: max(1, rows // most)].tolist())

    def batches(self, rows: int) -> Iterator[SpokenBatch]:
        """All of them once, in order of length."""
        group: list[int] = []
        for i in range(len(self)):
            if group and (len(group) + 1) * max(int(self.rows[j]) for j in (*group, i)) > rows:
                yield self.collate(group)
                group = []
            group.append(i)
        yield self.collate(group)

    def collate(self, indices: Sequence[int]) -> SpokenBatch:
        frames = torch.tensor([len(self.codes[i]) for i in indices])
        codes = torch.zeros(len(indices), int(frames.max()), self.codes[0].shape[1], dtype=torch.long)
        for row, i in enumerate(indices):
            codes[row, : len(self.codes[i])] = torch.from_numpy(self.codes[i]).long()
        texts, spelt = (pad_texts([of[i] for i in indices]) for of in (self.texts, self.spelt))
        return SpokenBatch(codes, frames, texts, spelt)

    def _only(self, indices: list[int]) -> "Transcribed":
        return Transcribed(*([of[i] for i in indices] for of in (self.codes, self.texts, self.spelt)))


def noisy(
    text: Int[Tensor, "b n"], part: float, vocab_size: int, draw: torch.Generator
) -> Int[Tensor, "b n"]:
    """The text with a `part` of its tokens exchanged for any of the vocabulary."""
    other = torch.randint(vocab_size, text.shape, generator=draw)
    chosen = torch.rand(text.shape, generator=draw) < part
    return torch.where(chosen & (text != IGNORED), other, text)


def misheard(codes: Int[Tensor, "b t k"], part: float, draw: torch.Generator) -> Int[Tensor, "b t k"]:
    """The codes, about a `part` of their frames exchanged, in stretches, for any frames of the batch."""
    items, frames = codes.shape[:2]
    begins = torch.rand(items, frames, generator=draw) < part / STRETCH
    wrong = torch.zeros_like(begins)
    for later in range(STRETCH):
        wrong[:, later:] |= begins[:, : max(0, frames - later)]
    other = codes.flatten(0, 1)[torch.randint(items * frames, (items, frames), generator=draw)]
    return torch.where(wrong[..., None], other, codes)
