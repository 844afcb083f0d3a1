"""The passes of each training step: sequences of like length, as a function of (seed, step) alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cat_tts.config import TTSConfig
from cat_tts.sequences.formats import build_example
from cat_tts.sequences.rows import (
    IGNORED,
    join_texts,
    speaking_rate,
    unconditional_rows,
)
from cat_tts.sequences.sequence_dropout import deep_frames, retained_codes, sample_depths
from cat_tts.text.tokenizers import TextTokenizer
from training.common.run import key
from training.common.settings import DepthDropoutConfig
from training.data.code_shards import Codes
from training.tts.voice_vectors import VoiceClips, voice_clips


@dataclass(frozen=True, kw_only=True)
class TTSBatchConfig:
    """What a step reads. Rows are text tokens and frames: the paper's steps have 1.35M."""

    rows: int = 1024
    """Rows of one pass, padding included, unless one sequence alone is longer."""
    passes: int = 1
    """Passes of a step, over all processes, whose gradients are added up: a multiple of the number of
    processes."""
    max_frames: int = 250
    """Longer utterances are left out, and no pair is longer."""
    pair: float = 0.5
    """Part of the sequences that are two utterances of one speaker: what inference looks like, where the
    first is the prompt."""

    def __post_init__(self) -> None:
        if min(self.rows, self.passes, self.max_frames) < 1 or not 0 <= self.pair <= 1:
            raise ValueError(
                f"rows={self.rows}, passes={self.passes}, max_frames={self.max_frames}, pair={self.pair}: "
                "give numbers from 1 on, and a part of the sequences, 0 to 1"
            )


@dataclass(frozen=True, kw_only=True)
class DropoutConfig(DepthDropoutConfig):
    """How many codebooks the samples of a step keep (paper eq. 7), and which text and frames they read."""

    lowest: int = 1
    highest: int | None = None
    """Depths are drawn from lowest to highest (None: all); the paper's rule is one less than all, which at
    p = 1 never trains the last codebook."""
    max_depth: int | None = None
    """Train the first codebooks only; a run that is continued without it trains all (a curriculum)."""
    deep_part: float = 1.0
    """Part of the frames on which codebooks beyond the first are trained, their loss being scaled up for the
    others; 0.0625 is CSM's."""
    frame_dropout: float = 0.0
    """Part of the frames that are predicted, but not read: pad codes stand in their place. Where a frame
    follows from the frames before it, a small model does not learn to read the text; Tacotron's decoder
    has half of its input dropped for the same reason. Ours, not the paper's."""
    text_dropout: float = 0.0
    """Part of the sequences that are trained without their text, for classifier-free guidance
    (`SamplingOptions.guidance`)."""
    speaker_dropout: float = 0.1
    """Part of the sequences that are trained without the voice vector, in runs with a `speaker_encoder`."""

    def __post_init__(self) -> None:
        if not 0 <= self.frame_dropout < 1:
            raise ValueError(f"frame_dropout={self.frame_dropout} of the frames: give 0 or more, less than 1")
        if not 0 <= self.text_dropout < 1:
            raise ValueError(
                f"text_dropout={self.text_dropout} of the sequences: give 0 or more, less than 1"
            )
        if not 0 <= self.speaker_dropout < 1:
            raise ValueError(
                f"speaker_dropout={self.speaker_dropout} of the sequences: give 0 or more, less than 1"
            )
        if not 0 < self.deep_part <= 1:
            raise ValueError(f"deep_part={self.deep_part} of the frames: give more than 0, at most 1")


class TTSBatch(NamedTuple):
    """Sequences padded on the right; row t of `targets` is what row t has to predict."""

    rows: Int[Tensor, "b t c"]
    targets: Int[Tensor, "b t c"]
    positions: Float[Tensor, "b t"]
    depth: Int[Tensor, " b"]
    deep: Bool[Tensor, "b t"] | None
    """Frames on which codebooks beyond the first are trained; None means all."""
    length: int
    """Number of rows without padding."""
    clips: VoiceClips | None = None
    """Where the voices are: of each sequence the prompt, or all where it has none; None: not needed."""

    @property
    def counts(self) -> Int[Tensor, "2"]:
        """The numbers of codes and decisions that are predicted, by which the loss of a step is divided."""
        codes = retained_codes(self.targets, self.depth).sum()
        return torch.stack([codes, (self.targets[..., 0] != IGNORED).sum()])

    def to(self, device: torch.device) -> "TTSBatch":
        """Return the batch with its tensors on another device."""
        parts = (self.rows, self.targets, self.positions, self.depth)
        rows, targets, positions, depth = (part.to(device, non_blocking=True) for part in parts)
        deep = None if self.deep is None else self.deep.to(device, non_blocking=True)
        clips = None if self.clips is None else self.clips.to(device)
        return TTSBatch(rows, targets, positions, depth, deep, self.length, clips)


class EpochPlan(NamedTuple):
    """One epoch: sequences in the order of their length, and where the passes begin among them."""

    groups: Int[np.ndarray, "n 2"]
    """Utterances of each sequence: prompt and target; -1 for no prompt."""
    starts: Int[np.ndarray, " m"]
    """First sequence of each pass."""
    order: Int[np.ndarray, " m"]
    """Passes in the order in which they are read."""


class TTSBatches(torch.utils.data.Dataset[list[TTSBatch]]):
    """Item `step` is the list of passes that this process makes of it.

    Every draw is keyed by the seed and by the epoch or the pass: neither the number of processes, nor that
    of workers, nor an interruption changes what a step reads. `epochs` gives the utterances of an epoch, in
    any order, with repetitions where corpora have weights; without it, each comes once.
    """

    def __init__(
        self,
        codes: Codes | Dataset,
        config: TTSConfig,
        text_tokenizer: TextTokenizer,
        batches: TTSBatchConfig,
        dropout: DropoutConfig,
        *,
        seed: int,
        steps: int,
        rank: int = 0,
        world: int = 1,
        epochs: Callable[[int], Int[np.ndarray, " n"]] | None = None,
    ) -> None:
        if batches.passes % world:
            raise ValueError(
                f"batches.passes={batches.passes} in {world} processes: give a multiple of {world}, "
                "and fewer batches.rows for a step that stays as large"
            )
        self.codes, self.config, self.text_tokenizer = codes, config, text_tokenizer
        self.batches, self.dropout, self.seed, self.steps = batches, dropout, seed, steps
        self.rank, self.world = rank, world
        self.full = config.num_codebooks if dropout.max_depth is None else dropout.max_depth
        if not 1 <= self.full <= config.num_codebooks:
            raise ValueError(f"max_depth={self.full} but the codes have {config.num_codebooks} codebooks")
        self._depths(1, torch.Generator())  # raises for a bad p or range before a run begins
        self.frames = np.array(codes["frames"][:])
        texts = [text_tokenizer.encode(text) for text in codes["text"][:]]
        self.tokens = np.array([len(ids) for ids in texts])
        self.speaking_rates = [
            speaking_rate(config, ids, int(n)) for ids, n in zip(texts, self.frames, strict=True)
        ]
        nothing = torch.zeros(0, config.num_codebooks, dtype=torch.long)
        example = build_example(config, text_tokenizer, "a", nothing)
        self.format_rows = len(example.rows) - len(text_tokenizer.encode("a"))
        self.usable = np.flatnonzero(self.frames <= batches.max_frames)
        if not len(self.usable):
            raise ValueError(
                f"no utterance has at most {batches.max_frames} frames: nothing to train on; "
                "give more batches.max-frames"
            )
        self.epochs = epochs if epochs is not None else lambda _: self.usable
        names, speaker = np.unique(np.array(codes["speaker"][:])[self.usable], return_inverse=True)
        self.by_speaker = self.usable[np.argsort(speaker, kind="stable")]
        self.speaker = np.full(len(self.frames), -1)
        self.speaker[self.usable] = speaker
        self.speaker_sizes = np.bincount(speaker)
        self.speaker_starts = np.cumsum(self.speaker_sizes) - self.speaker_sizes
        self.speaker_known = names != ""
        self.ends: list[int] = []
        """Number of passes up to the end of each epoch."""
        self.planned: tuple[int, EpochPlan] | None = None

    @property
    def deepest(self) -> int:
        """The number of codebooks that some sample keeps."""
        return (self.dropout.highest or self.full) if self.dropout.p == 1 else self.full

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> list[TTSBatch]:
        first = step * self.batches.passes
        return [self._pass(i) for i in range(first + self.rank, first + self.batches.passes, self.world)]

    def _pass(self, number: int) -> TTSBatch:
        while not self.ends or number >= self.ends[-1]:
            passes = len(self._plan(len(self.ends)).starts)
            self.ends.append((self.ends[-1] if self.ends else 0) + passes)
        epoch = int(np.searchsorted(self.ends, number, side="right"))
        plan = self._plan(epoch)
        index = plan.order[number - (self.ends[epoch - 1] if epoch else 0)]
        stop = plan.starts[index + 1] if index + 1 < len(plan.starts) else len(plan.groups)
        draw = torch.Generator().manual_seed(key(self.seed, number))
        return self.collate([tuple(g[g >= 0].tolist()) for g in plan.groups[plan.starts[index] : stop]], draw)

    def _plan(self, epoch: int) -> EpochPlan:
        if self.planned is None or self.planned[0] != epoch:
            self.planned = epoch, self._draw(epoch)
        return self.planned[1]

    def _draw(self, epoch: int) -> EpochPlan:
        draw = np.random.default_rng((self.seed, epoch))
        target = self.epochs(epoch)
        target = target[self.speaker[target] >= 0]
        speaker = self.speaker[target]
        offset = (draw.random(len(target)) * self.speaker_sizes[speaker]).astype(np.int64)
        prompt = self.by_speaker[self.speaker_starts[speaker] + offset]
        fits = self.frames[prompt] + self.frames[target] <= self.batches.max_frames
        fits &= self.speaker_known[speaker] & (prompt != target)
        paired = (draw.random(len(target)) < self.batches.pair) & fits
        # Most rows of a sequence: its texts and what joins two of them, its frames, the format around them.
        rows = self.tokens + self.frames
        length = self.format_rows + rows[target] + np.where(paired, rows[prompt] + 1, 0)
        order = np.argsort(length * draw.uniform(0.9, 1.1, len(target)), kind="stable")
        groups, length = np.stack([np.where(paired, prompt, -1), target], 1)[order], length[order]
        starts = [0]
        most = max(1, self.batches.rows // int(length.min()))  # sequences of a pass
        while starts[-1] < len(length):
            longest = np.maximum.accumulate(length[starts[-1] : starts[-1] + most + 1])
            within = int((longest * np.arange(1, len(longest) + 1) <= self.batches.rows).sum())
            starts.append(starts[-1] + max(1, within))
        return EpochPlan(groups, np.array(starts[:-1]), draw.permutation(len(starts) - 1))

    def _depths(self, count: int, draw: torch.Generator) -> Int[Tensor, " b"]:
        config = self.dropout
        return sample_depths(count, self.full, config.p, draw, lowest=config.lowest, highest=config.highest)

    def collate(self, groups: list[tuple[int, ...]], draw: torch.Generator | None = None) -> TTSBatch:
        """Build the sequences of some groups of utterances.

        Args:
            groups: Indices of the utterances of each sequence, the prompt first.
            draw: Source of depths and dropout; None means full depth and no dropout.
        """
        rows, targets, places, voices = [], [], [], []
        for group in groups:
            utterances = [self.codes[i] for i in group]
            texts = [utterance["text"] for utterance in utterances]
            text = texts[0] if len(texts) == 1 else join_texts(texts[0], texts[1])
            codes = torch.cat(
                [torch.tensor(utterance["codes"], dtype=torch.long) for utterance in utterances]
            )
            rate = self.speaking_rates[group[0]]
            example = build_example(self.config, self.text_tokenizer, text, codes, rate=rate)
            rows.append(example.rows)
            targets.append(example.targets)
            places.append(example.positions)
            voices.append(codes[: int(self.frames[group[0]])])
        target, part = pad_sequence(targets, True, IGNORED), self.dropout.deep_part
        depth = torch.full((len(groups),), self.full) if draw is None else self._depths(len(groups), draw)
        deep = deep_frames(target, part, draw) if draw is not None and part < 1 else None
        read = pad_sequence(rows, True)
        if draw is not None and self.dropout.text_dropout:
            dropped = torch.rand(len(read), generator=draw) < self.dropout.text_dropout
            read[dropped] = unconditional_rows(self.config, read[dropped])
        if draw is not None and self.dropout.frame_dropout:
            dropped = torch.rand(read.shape[:2], generator=draw) < self.dropout.frame_dropout
            read[..., 1:][dropped] = self.config.pad_code
        clips = None
        if self.config.speaker_dim is not None:
            without = draw and torch.rand(len(read), generator=draw) < self.dropout.speaker_dropout
            clips = voice_clips(voices, without)
        # Rows are padded with zeros, which are valid in every column: nothing attends to them.
        return TTSBatch(
            read,
            target,
            pad_sequence(places, True),
            depth,
            deep,
            sum(len(sequence) for sequence in rows),
            clips,
        )
