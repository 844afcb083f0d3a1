"""Encoded utterances with their transcripts, in memory: the batches of CAT-ASR's training."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from cat_tts.asr.model import pad_texts
from cat_tts.sequences.rows import IGNORED
from cat_tts.sequences.sequence_dropout import sample_depths
from cat_tts.text.tokenizers import TextTokenizer
from training.common.run import key
from training.data.code_shards import Codes

POOL_FACTOR = 4
"""A batch is drawn from so many times its size of utterances of like length."""
NOISE_SPAN_FRAMES = 4
"""Frames in a row that are replaced by others: 0.3 s, about a word."""
CURRICULUM_MIN_FRAMES = 25
"""Longest utterance of a curriculum's first step: 2 s."""


@dataclass(frozen=True, kw_only=True)
class ASRBatchConfig:
    """What a step reads. The noise makes the model use the audio, where it would learn texts by heart."""

    rows: int = 768
    """Frames and text tokens of a batch, padding included."""
    max_frames: int = 120
    """Longer utterances are left out."""
    length_warmup: int = 500
    """Steps over which the longest utterance of a step grows from 2 s to `max_frames`."""
    text_noise: float = 0.3
    """Part of the text tokens that are replaced where the model reads them, but not where it writes them."""
    frame_noise: float = 0.0
    """Part of the frames that are replaced by others, in spans: a repeated utterance is then not learnt by
    heart."""

    def longest(self, step: int) -> int:
        """Return the frames of the longest utterance of a step: the curriculum."""
        if step >= self.length_warmup:
            return self.max_frames
        growth = (self.max_frames - CURRICULUM_MIN_FRAMES) * step / max(1, self.length_warmup)
        return min(self.max_frames, int(CURRICULUM_MIN_FRAMES + growth))


class ASRBatch(NamedTuple):
    """Utterances padded on the right: codes with zeros, texts with `IGNORED`."""

    codes: Int[Tensor, "b t k"]
    frames: Int[Tensor, " b"]
    text: Int[Tensor, "b n"]
    """Ids that the model has to write."""
    depth: Int[Tensor, " b"]
    """Codebooks of each utterance that are read."""
    decoder_inputs: Int[Tensor, "b n"]
    """Ids that the model reads of the text: some are replaced in training."""
    ctc_targets: Int[Tensor, "b m"]
    """Ids that the CTC head has to find."""

    def to(self, device: torch.device) -> "ASRBatch":
        """Return the batch on another device."""
        return ASRBatch(*(part.to(device) for part in self))


class Utterances:
    """Codes and texts of utterances, sorted by length: an hour of 12 codebooks takes 1 MB."""

    def __init__(self, codes: list[np.ndarray], texts: list[list[int]], ctc_targets: list[list[int]]) -> None:
        order = np.argsort([len(utterance) for utterance in codes], kind="stable").tolist()
        self.codes = [codes[i] for i in order]
        self.texts = [texts[i] for i in order]
        self.ctc_targets = [ctc_targets[i] for i in order]
        self.frames = np.array([len(utterance) for utterance in self.codes])
        self.rows = self.frames + np.array([len(text) for text in self.texts]) + 2

    @classmethod
    def read(
        cls,
        codes: Codes,
        text_tokenizer: TextTokenizer,
        max_frames: int,
        spell: Callable[[str], list[int]],
    ) -> "Utterances":
        """Read the utterances of at most `max_frames` frames.

        Args:
            codes: The shards.
            text_tokenizer: What the model reads and writes.
            max_frames: Longest utterance.
            spell: Returns the CTC targets of a text, see `CatASR.ctc_targets`.

        Raises:
            ValueError: all utterances are longer.
        """
        arrays: list[np.ndarray] = []
        texts: list[list[int]] = []
        ctc_targets: list[list[int]] = []
        for row in codes:
            if row["frames"] <= max_frames:
                arrays.append(np.array(row["codes"], dtype=np.int16))
                texts.append(text_tokenizer.encode(row["text"]))
                ctc_targets.append(spell(row["text"]))
        if not arrays:
            raise ValueError(f"no utterance has at most {max_frames} frames: nothing to train on")
        return cls(arrays, texts, ctc_targets)

    def __len__(self) -> int:
        return len(self.codes)

    def split(self, count: int, seed: int) -> "tuple[Utterances, Utterances]":
        """Keep `count` utterances at random out of the rest, and their texts too.

        Returns:
            The rest, and the utterances kept out.

        Raises:
            ValueError: nothing is left.
        """
        chosen = np.random.default_rng(seed).permutation(len(self))[:count].tolist()
        excluded = {tuple(self.ctc_targets[i]) for i in chosen}
        rest = [i for i in range(len(self)) if tuple(self.ctc_targets[i]) not in excluded]
        if not rest:
            raise ValueError(f"all {len(self)} utterances say what the {count} kept out say")
        return self._only(rest), self._only(chosen)

    def batch(self, draw: torch.Generator, rows: int, longest: int) -> ASRBatch:
        """Draw utterances of like length, each of at most `longest` frames where there are any so short."""
        usable = max(1, int(np.searchsorted(self.frames, longest, side="right")))
        centre = int(torch.randint(usable, (), generator=draw))
        size = max(1, rows // int(self.rows[centre]))
        low = max(0, min(centre - POOL_FACTOR * size // 2, usable - POOL_FACTOR * size))
        pool = np.arange(low, min(usable, low + POOL_FACTOR * size))
        picked = pool[torch.randperm(len(pool), generator=draw)[:size].numpy()]
        most = int(self.rows[picked].max())
        return self.collate(picked[: max(1, rows // most)].tolist())

    def batches(self, rows: int) -> Iterator[ASRBatch]:
        """Yield all utterances once, in order of length."""
        group: list[int] = []
        for i in range(len(self)):
            if group and (len(group) + 1) * max(int(self.rows[j]) for j in (*group, i)) > rows:
                yield self.collate(group)
                group = []
            group.append(i)
        yield self.collate(group)

    def collate(self, indices: Sequence[int]) -> ASRBatch:
        """Return some utterances as a batch, at full depth and without noise."""
        frames = torch.tensor([len(self.codes[i]) for i in indices])
        num_codebooks = self.codes[0].shape[1]
        codes = torch.zeros(len(indices), int(frames.max()), num_codebooks, dtype=torch.long)
        for slot, i in enumerate(indices):
            codes[slot, : len(self.codes[i])] = torch.from_numpy(self.codes[i]).long()
        text = pad_texts([self.texts[i] for i in indices])
        ctc_targets = pad_texts([self.ctc_targets[i] for i in indices])
        depth = torch.full((len(indices),), num_codebooks)
        return ASRBatch(codes, frames, text, depth, text, ctc_targets)

    def _only(self, indices: list[int]) -> "Utterances":
        columns = (self.codes, self.texts, self.ctc_targets)
        return Utterances(*([column[i] for i in indices] for column in columns))


class ASRBatches(Dataset[ASRBatch]):
    """Item `step` is this process's batch of a training step, a function of (seed, step, rank) alone."""

    def __init__(
        self,
        utterances: Utterances,
        batches: ASRBatchConfig,
        *,
        depth_dropout: float,
        vocab_size: int,
        seed: int,
        steps: int,
        rank: int = 0,
    ) -> None:
        self.utterances, self.batches = utterances, batches
        self.depth_dropout, self.vocab_size = depth_dropout, vocab_size
        self.seed, self.steps, self.rank = seed, steps, rank

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> ASRBatch:
        draw = torch.Generator().manual_seed(key(self.seed, step, self.rank))
        batch = self.utterances.batch(draw, self.batches.rows, self.batches.longest(step))
        decoder_inputs = corrupt_text(batch.text, self.batches.text_noise, self.vocab_size, draw)
        codes = corrupt_frames(batch.codes, self.batches.frame_noise, draw)
        depth = sample_depths(len(codes), codes.shape[2], self.depth_dropout, draw)
        return batch._replace(codes=codes, depth=depth, decoder_inputs=decoder_inputs)


def corrupt_text(
    text: Int[Tensor, "b n"], part: float, vocab_size: int, draw: torch.Generator
) -> Int[Tensor, "b n"]:
    """Replace a part of the tokens of texts by any of the vocabulary; padding stays."""
    other = torch.randint(vocab_size, text.shape, generator=draw)
    chosen = torch.rand(text.shape, generator=draw) < part
    return torch.where(chosen & (text != IGNORED), other, text)


def corrupt_frames(codes: Int[Tensor, "b t k"], part: float, draw: torch.Generator) -> Int[Tensor, "b t k"]:
    """Replace about a part of the frames, in spans of `NOISE_SPAN_FRAMES`, by any frames of the batch."""
    items, frames = codes.shape[:2]
    begins = torch.rand(items, frames, generator=draw) < part / NOISE_SPAN_FRAMES
    wrong = torch.zeros_like(begins)
    for later in range(NOISE_SPAN_FRAMES):
        wrong[:, later:] |= begins[:, : max(0, frames - later)]
    other = codes.flatten(0, 1)[torch.randint(items * frames, (items, frames), generator=draw)]
    return torch.where(wrong[..., None], other, codes)
