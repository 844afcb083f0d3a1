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
from cat_tts.sequences.formats import example_rows
from cat_tts.sequences.rows import IGNORED, join_texts, positions, shifted_targets, speaking_pace, untold_rows
from cat_tts.sequences.sequence_dropout import deep_frames, kept_codes, sample_depths
from cat_tts.text.tokenizers import TextTokenizer
from training.common.run import key
from training.data.code_shards import Codes


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """What a step reads. Rows are text tokens and frames: the paper's steps have 1.35M."""

    rows: int = 1024
    """Of one pass, padding included, unless one sequence alone is longer."""
    passes: int = 1
    """Of a step, over all processes; their gradients are added up. A multiple of the number of processes."""
    max_frames: int = 250
    """Longer utterances are left out, and no longer pairs made."""
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
class DropoutConfig:
    """How deep the samples of a step are (paper eq. 7), and on which frames that is learnt."""

    p: float = 1.0
    """Probability that a sample keeps a part of its codebooks only."""
    lowest: int = 1
    highest: int | None = None
    """Depths are drawn from lowest to highest (None: all); the paper's rule is one less than all, which at
    p = 1 never trains the last codebook."""
    max_depth: int | None = None
    """Train the first codebooks only; a run that goes on without it trains all (a curriculum)."""
    deep_part: float = 1.0
    """Part of the frames on which codebooks beyond the first are learnt, the loss of the others being put
    down to them; 0.0625 is CSM's."""
    unheard: float = 0.0
    """Part of the frames that are predicted, but not read: pad codes stand in their place. Where what comes
    next follows from what came before, a small model does not learn to read the text; Tacotron's decoder
    has half of its input dropped for the same reason. Ours, not the paper's."""
    untold: float = 0.0
    """Part of the sequences that are learnt without their text, for guidance (`SamplingOptions.guidance`)."""

    def __post_init__(self) -> None:
        if not 0 <= self.unheard < 1:
            raise ValueError(f"unheard={self.unheard} of the frames: give 0 or more, less than 1")
        if not 0 <= self.untold < 1:
            raise ValueError(f"untold={self.untold} of the sequences: give 0 or more, less than 1")
        if not 0 < self.deep_part <= 1:
            raise ValueError(f"deep_part={self.deep_part} of the frames: give more than 0, at most 1")


class Batch(NamedTuple):
    """Sequences padded on the right; `targets` row t is what row t has to answer."""

    rows: Int[Tensor, "b t c"]
    targets: Int[Tensor, "b t c"]
    positions: Float[Tensor, "b t"]
    depth: Int[Tensor, " b"]
    deep: Bool[Tensor, "b t"] | None
    length: int
    """Rows without padding."""

    @property
    def counts(self) -> Int[Tensor, "2"]:
        """Codes and decisions that are learnt: what the loss of a step is divided by."""
        codes = kept_codes(self.targets, self.depth).sum()
        return torch.stack([codes, (self.targets[..., 0] != IGNORED).sum()])

    def to(self, device: torch.device) -> "Batch":
        parts = (self.rows, self.targets, self.positions, self.depth)
        rows, targets, positions, depth = (part.to(device, non_blocking=True) for part in parts)
        deep = None if self.deep is None else self.deep.to(device, non_blocking=True)
        return Batch(rows, targets, positions, depth, deep, self.length)


class Plan(NamedTuple):
    """One epoch: sequences in the order of their length, and where the passes begin among them."""

    groups: Int[np.ndarray, "n 2"]
    """Prompt and target; -1 for no prompt."""
    starts: Int[np.ndarray, " m"]
    order: Int[np.ndarray, " m"]


class Batches(torch.utils.data.Dataset[list[Batch]]):
    """Item `step` is the list of passes that this process makes of it.

    Every draw is keyed by the seed and by the epoch or the pass: neither the number of processes, nor that
    of workers, nor an interruption changes what a step reads. `epochs` gives the utterances of an epoch, in
    any order, with repetitions where corpora have weights; without it, each comes once.
    """

    def __init__(
        self,
        codes: Codes | Dataset,
        config: TTSConfig,
        tokenizer: TextTokenizer,
        batches: BatchConfig,
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
        self.codes, self.config, self.tokenizer = codes, config, tokenizer
        self.batches, self.dropout, self.seed, self.steps = batches, dropout, seed, steps
        self.rank, self.world = rank, world
        self.full = config.num_codebooks if dropout.max_depth is None else dropout.max_depth
        if not 1 <= self.full <= config.num_codebooks:
            raise ValueError(f"max_depth={self.full} but the codes have {config.num_codebooks} codebooks")
        self._depths(1, torch.Generator())  # complains about p and range before a run begins
        self.frames = np.array(codes["frames"][:])
        ids = [tokenizer.encode(text) for text in codes["text"][:]]
        self.tokens = np.array([len(one) for one in ids])
        self.paces = [speaking_pace(config, one, int(n)) for one, n in zip(ids, self.frames, strict=True)]
        nothing = torch.zeros(0, config.num_codebooks, dtype=torch.long)
        self.around = len(example_rows(config, tokenizer, "a", nothing)) - len(tokenizer.encode("a")) - 1
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
        """Passes up to the end of each epoch."""
        self.planned: tuple[int, Plan] | None = None

    @property
    def deepest(self) -> int:
        """Codebooks that some sample keeps."""
        return (self.dropout.highest or self.full) if self.dropout.p == 1 else self.full

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> list[Batch]:
        first = step * self.batches.passes
        return [self._pass(i) for i in range(first + self.rank, first + self.batches.passes, self.world)]

    def _pass(self, number: int) -> Batch:
        while not self.ends or number >= self.ends[-1]:
            passes = len(self._plan(len(self.ends)).starts)
            self.ends.append((self.ends[-1] if self.ends else 0) + passes)
        epoch = int(np.searchsorted(self.ends, number, side="right"))
        plan = self._plan(epoch)
        place = plan.order[number - (self.ends[epoch - 1] if epoch else 0)]
        stop = plan.starts[place + 1] if place + 1 < len(plan.starts) else len(plan.groups)
        draw = torch.Generator().manual_seed(key(self.seed, number))
        return self.collate([tuple(g[g >= 0].tolist()) for g in plan.groups[plan.starts[place] : stop]], draw)

    def _plan(self, epoch: int) -> Plan:
        if self.planned is None or self.planned[0] != epoch:
            self.planned = epoch, self._draw(epoch)
        return self.planned[1]

    def _draw(self, epoch: int) -> Plan:
        draw = np.random.default_rng((self.seed, epoch))
        target = self.epochs(epoch)
        target = target[self.speaker[target] >= 0]
        speaker = self.speaker[target]
        place = (draw.random(len(target)) * self.speaker_sizes[speaker]).astype(np.int64)
        prompt = self.by_speaker[self.speaker_starts[speaker] + place]
        fits = self.frames[prompt] + self.frames[target] <= self.batches.max_frames
        fits &= self.speaker_known[speaker] & (prompt != target)
        paired = (draw.random(len(target)) < self.batches.pair) & fits
        # Most rows of a sequence: its texts and what joins two of them, its frames, the format around them.
        rows = self.tokens + self.frames
        length = self.around + rows[target] + np.where(paired, rows[prompt] + 1, 0)
        order = np.argsort(length * draw.uniform(0.9, 1.1, len(target)), kind="stable")
        groups, length = np.stack([np.where(paired, prompt, -1), target], 1)[order], length[order]
        starts = [0]
        most = max(1, self.batches.rows // int(length.min()))  # sequences of a pass
        while starts[-1] < len(length):
            longest = np.maximum.accumulate(length[starts[-1] : starts[-1] + most + 1])
            within = int((longest * np.arange(1, len(longest) + 1) <= self.batches.rows).sum())
            starts.append(starts[-1] + max(1, within))
        return Plan(groups, np.array(starts[:-1]), draw.permutation(len(starts) - 1))

    def _depths(self, count: int, draw: torch.Generator) -> Int[Tensor, " b"]:
        drawn = self.dropout
        return sample_depths(count, self.full, drawn.p, draw, lowest=drawn.lowest, highest=drawn.highest)

    def collate(self, groups: list[tuple[int, ...]], draw: torch.Generator | None = None) -> Batch:
        """The sequences of some groups of utterances; at full depth where nothing is drawn."""
        rows, targets, places = [], [], []
        for group in groups:
            found = [self.codes[i] for i in group]
            text = found[0]["text"] if len(found) == 1 else join_texts(found[0]["text"], found[1]["text"])
            codes = torch.cat([torch.tensor(utterance["codes"], dtype=torch.long) for utterance in found])
            sequence = example_rows(self.config, self.tokenizer, text, codes)
            rows.append(sequence[:-1])
            targets.append(shifted_targets(self.config, sequence[None])[0])
            places.append(positions(self.config, rows[-1], self.paces[group[0]]))
        target, part = pad_sequence(targets, True, IGNORED), self.dropout.deep_part
        depth = torch.full((len(groups),), self.full) if draw is None else self._depths(len(groups), draw)
        deep = deep_frames(target, part, draw) if draw is not None and part < 1 else None
        read = pad_sequence(rows, True)
        if draw is not None and self.dropout.untold:
            untold = torch.rand(len(read), generator=draw) < self.dropout.untold
            read[untold] = untold_rows(self.config, read[untold])
        if draw is not None and self.dropout.unheard:
            unheard = torch.rand(read.shape[:2], generator=draw) < self.dropout.unheard
            read[..., 1:][unheard] = self.config.pad_code
        # Rows are padded with zeros, which are valid in every column: nothing attends to them.
        return Batch(
            read,
            target,
            pad_sequence(places, True),
            depth,
            deep,
            sum(len(sequence) for sequence in rows),
        )
