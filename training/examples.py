"""Batches of training sequences: every step's batch is a function of (seed, step) alone."""

from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cat_tts.config import TTSConfig
from cat_tts.sequence import (
    IGNORED,
    frames_per_token,
    join_texts,
    positions,
    shifted_targets,
    training_rows,
)
from cat_tts.text import TextTokenizer
from training.codes import Codes


@dataclass(frozen=True)
class Batch:
    """Sequences padded on the right; `targets` row t is what row t has to answer."""

    rows: Int[Tensor, "b t c"]
    targets: Int[Tensor, "b t c"]
    positions: Float[Tensor, "b t"]

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.rows.to(device), self.targets.to(device), self.positions.to(device))


class Batches(torch.utils.data.Dataset):
    """Item i is batch i of an endless run over `codes`, in an order drawn anew for every epoch.

    A part `pair` of the sequences are two utterances of one speaker: the text of both, then the codes of
    both, at the pace of the first. That is what inference looks like, where the first is the prompt. A
    batch holds sequences of like length, at most `rows_per_batch` rows with padding unless one sequence
    alone is longer. Utterances beyond `max_frames` are left out, and pairs beyond it not made.
    """

    def __init__(
        self,
        codes: Codes | Dataset,
        config: TTSConfig,
        tokenizer: TextTokenizer,
        *,
        rows_per_batch: int,
        max_frames: int,
        pair: float,
        seed: int,
        items: int,
    ) -> None:
        self.codes, self.config, self.tokenizer = codes, config, tokenizer
        self.rows_per_batch, self.max_frames = rows_per_batch, max_frames
        self.pair, self.seed, self.items = pair, seed, items
        self.frames = np.array(codes["frames"][:])
        self.tokens = np.array([len(tokenizer.encode(text)) for text in codes["text"][:]])
        self.usable = np.flatnonzero(self.frames <= max_frames)
        if not len(self.usable):
            raise ValueError(f"no utterance has at most {max_frames} frames: nothing to train on")
        by_speaker: dict[str, list[int]] = {}
        speakers = codes["speaker"][:]
        for index in self.usable.tolist():
            by_speaker.setdefault(speakers[index], []).append(index)
        self.same_speaker = {index: group for group in by_speaker.values() for index in group}
        self.plans: list[list[list[tuple[int, ...]]]] = []
        self.ends: list[int] = []
        """Number of batches up to the end of each planned epoch."""

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, item: int) -> Batch:
        while not self.ends or item >= self.ends[-1]:
            self.plans.append(self._plan(len(self.plans)))
            self.ends.append((self.ends[-1] if self.ends else 0) + len(self.plans[-1]))
        epoch = int(np.searchsorted(self.ends, item, side="right"))
        first = self.ends[epoch - 1] if epoch else 0
        return self.collate(self.plans[epoch][item - first])

    def _plan(self, epoch: int) -> list[list[tuple[int, ...]]]:
        """The epoch's batches, as groups of one or two utterances."""
        draw = np.random.default_rng((self.seed, epoch))
        groups = []
        for index in self.usable.tolist():
            others = self.same_speaker[index]
            prompt = others[int(draw.integers(len(others)))]
            fits = prompt != index and self.frames[prompt] + self.frames[index] <= self.max_frames
            groups.append((prompt, index) if draw.random() < self.pair and fits else (index,))
        noise = draw.uniform(0.9, 1.1, len(groups))
        groups = [groups[i] for i in np.argsort([self._rows(group) for group in groups] * noise)]
        batches: list[list[tuple[int, ...]]] = [[]]
        for group in groups:
            longest = max(self._rows(other) for other in [*batches[-1], group])
            if batches[-1] and longest * (len(batches[-1]) + 1) > self.rows_per_batch:
                batches.append([])
            batches[-1].append(group)
        return [batches[i] for i in draw.permutation(len(batches))]

    def _rows(self, group: tuple[int, ...]) -> int:
        """Most rows of a sequence: audio_start, its texts and what joins two of them, its frames."""
        return len(group) + sum(int(self.tokens[i] + self.frames[i]) for i in group)

    def collate(self, groups: list[tuple[int, ...]]) -> Batch:
        """The sequences of some groups of utterances as one batch."""
        rows, targets, places = [], [], []
        for group in groups:
            found = [self.codes[i] for i in group]
            text = found[0]["text"] if len(found) == 1 else join_texts(found[0]["text"], found[1]["text"])
            codes = torch.cat([torch.tensor(utterance["codes"], dtype=torch.long) for utterance in found])
            sequence = training_rows(self.config, self.tokenizer, text, codes)
            rows.append(sequence[:-1])
            targets.append(shifted_targets(self.config, sequence[None])[0])
            pace = frames_per_token(int(self.frames[group[0]]), int(self.tokens[group[0]]))
            places.append(positions(self.config, rows[-1], pace))
        # Rows are padded with zeros, which are valid in every column: nothing attends to them.
        return Batch(
            pad_sequence(rows, True), pad_sequence(targets, True, IGNORED), pad_sequence(places, True)
        )
