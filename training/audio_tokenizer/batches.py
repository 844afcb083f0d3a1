"""The audio of each training step, as a function of (seed, step): whole utterances, or random crops."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from tokenizer.config import TokenizerConfig
from tokenizer.io.audio import AudioError, load_audio
from training.data.manifest import TASKS, Clip

MAX_ATTEMPTS = 20
"""Files that are drawn for an item of a batch before the run ends."""
FRAME_MULTIPLE = 8
"""Utterances are padded to a multiple of so many frames where a batch has room: with few shapes, kernels that
are built for a shape are used again."""
FRAMES_PER_ROW, CALIBRATION_CROP = 60, 2.56
"""Data that codebooks are calculated from: frames for each row, and the seconds of a crop."""


@dataclass(frozen=True, kw_only=True)
class TokenizerBatchConfig:
    """The audio of a step. Batches are counted in seconds of audio: Figure 6 varies `batch_seconds`."""

    batch_seconds: float = 10.24
    """Audio of a step, over all processes, padding included."""
    crop_seconds: float = 0.64
    """Length of a crop; rounded up to whole frames."""
    utterances: float = 0.0
    """Part of the steps made of whole utterances; of crops, only those of a whole clip have a text."""
    gain: float = 3.0
    """Each item is made louder or softer by up to so many dB, never beyond full scale."""
    depths: tuple[int, ...] = ()
    """Depths that are drawn, all as often; none means each from 1 to the deepest. Depths that a model will be
    used at learn faster when they are drawn more often: 1 3 6 12 12 32."""
    text_noise: float = 0.0
    """Part of the text tokens that are replaced where the semantic head reads them, so that it has to use the
    audio."""
    multiple: int = 1
    """The items of a step are a multiple of this and of the number of processes. Runs on 1 and on 4
    processes have the same steps when both are given 4."""

    def __post_init__(self) -> None:
        if not 0 <= self.utterances <= 1:
            raise ValueError(f"utterances={self.utterances}: give a part of the steps, 0 to 1")
        if not 0 <= self.text_noise < 1:
            raise ValueError(f"text_noise={self.text_noise}: give a part of the text, 0 to below 1")
        if self.multiple < 1 or self.gain < 0 or min(self.batch_seconds, self.crop_seconds) <= 0:
            raise ValueError(
                f"batch_seconds={self.batch_seconds}, crop_seconds={self.crop_seconds}, gain={self.gain}, "
                f"multiple={self.multiple}: give lengths above 0, a gain of 0 or more, a multiple from 1 on"
            )


class TokenizerBatch(NamedTuple):
    """One process's items of a step, and the files that could not be read for it."""

    audio: Float[Tensor, "b s"]
    frames: Int[Tensor, " b"]
    """Frames of the audio itself; the rest is silence."""
    depth: Int[Tensor, " b"]
    tasks: Int[Tensor, " b"]
    texts: list[list[int]]
    """Token ids; empty where there is no text, or none that fits the audio."""
    decoder_inputs: list[list[int]]
    """The ids that the semantic head reads of the texts: some are replaced."""
    failures: list[str]
    """One message for each file that was drawn and could not be read."""

    @property
    def tokens(self) -> int:
        """The number of tokens of all texts and their ends."""
        return sum(len(text) + 1 for text in self.texts if text)

    def to(self, device: torch.device) -> "TokenizerBatch":
        """Return the batch with its tensors on another device."""
        audio, frames, depth, tasks = (part.to(device, non_blocking=True) for part in self[:4])
        return TokenizerBatch(audio, frames, depth, tasks, self.texts, self.decoder_inputs, self.failures)


class TokenizerBatches(Dataset):
    """Item `step` is this process's part of the step's batch.

    Every draw is keyed by (seed, step, slot in the global batch): neither the number of processes, nor
    that of workers, nor an interruption changes the audio of a step. Without `encode`, items have no texts.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        config: TokenizerBatchConfig,
        model: TokenizerConfig,
        encode: Callable[[str], list[int]] | None,
        *,
        seed: int,
        steps: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if not clips:
            raise ValueError("the manifest holds no clips: nothing to train on")
        if packed := next((clip for clip in clips if clip.member), None):
            raise ValueError(f"{packed.audio}: extract this archive and import again, to cut crops out of it")
        self.clips, self.config, self.model, self.encode = clips, config, model, encode
        self.seed, self.steps, self.rank, self.world = seed, steps, rank, world
        self.multiple = math.lcm(config.multiple, world)
        self.batch_frames = round(config.batch_seconds * model.frame_rate)
        self.crop_frames = self._frames(config.crop_seconds)
        if self.batch_frames < self.multiple * self.crop_frames:
            needed = self.multiple * self.crop_frames / model.frame_rate
            raise ValueError(
                f"batch_seconds={config.batch_seconds} cannot hold {self.multiple} crops of "
                f"{config.crop_seconds} s: give {needed:g} or more"
            )
        self.depths = config.depths or range(1, model.num_codebooks + 1)
        if not 1 <= min(self.depths) <= max(self.depths) <= model.num_codebooks:
            raise ValueError(
                f"depths={config.depths}: this tokenizer has codebooks 1 to {model.num_codebooks}"
            )
        self.edges = np.cumsum([clip.duration for clip in clips])
        spoken = [(self._frames(clip.duration), i) for i, clip in enumerate(clips) if clip.text]
        spoken = sorted(pair for pair in spoken if pair[0] <= self.batch_frames // self.multiple)
        self.spoken = np.array([i for _, i in spoken], dtype=np.int64)
        self.spoken_frames = np.array([frames for frames, _ in spoken], dtype=np.int64)
        self.spoken_edges = np.cumsum(self.spoken_frames)
        if config.utterances > 0 and not spoken:
            raise ValueError(
                f"utterances={config.utterances} but no clip with a text lasts at most "
                f"{self.batch_frames // self.multiple / model.frame_rate:g} s: raise batch_seconds, or give 0"
            )

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> TokenizerBatch:
        draw = np.random.default_rng((self.seed, step))
        if draw.random() < self.config.utterances:
            frames, chosen, pool = self._utterances(draw)
        else:
            frames, pool = self.crop_frames, None
            chosen = [None] * self._count(frames)
        mine = range(self.rank, len(chosen), self.world)
        failures: list[str] = []
        items = [self._item(step, i, frames, pool, chosen[i], failures) for i in mine]
        audio, lengths, depths, tasks, texts, decoder_inputs = zip(*items, strict=True)
        frames, depth, task = (torch.tensor(column) for column in (lengths, depths, tasks))
        return TokenizerBatch(
            torch.stack(audio), frames, depth, task, list(texts), list(decoder_inputs), failures
        )

    def _swap_tokens(self, text: list[int], draw: np.random.Generator) -> list[int]:
        """Replace a part of the tokens by others of the same text."""
        if not text or not self.config.text_noise:
            return text
        wrong = draw.random(len(text)) < self.config.text_noise
        others = draw.choice(text, len(text))
        return np.where(wrong, others, text).tolist()

    def _frames(self, seconds: float) -> int:
        return max(1, -(-round(seconds * self.model.sample_rate) // self.model.frame_size))

    def _count(self, frames: int) -> int:
        """Return how many items of `frames` fill a batch."""
        return max(1, self.batch_frames // int(frames) // self.multiple) * self.multiple

    def _utterances(self, draw: np.random.Generator) -> tuple[int, list[int], np.ndarray]:
        """Draw utterances of like length.

        Their middle is drawn in proportion to length, which makes all utterances equally frequent.

        Returns:
            Frames of the batch, the chosen clips, and a pool that replaces broken ones.
        """
        point = draw.random() * self.spoken_edges[-1]
        middle = int(np.searchsorted(self.spoken_edges, point, side="right"))
        size = min(len(self.spoken), 4 * self._count(self.spoken_frames[middle]))
        first = min(max(0, middle - size // 2), len(self.spoken) - size)
        count = self._count(self.spoken_frames[first + size - 1])
        chosen = first + draw.choice(size, count, replace=count > size)
        longest = -(-int(self.spoken_frames[chosen].max()) // FRAME_MULTIPLE) * FRAME_MULTIPLE
        return (
            min(longest, self.batch_frames // count),
            self.spoken[chosen].tolist(),
            self.spoken[first : first + size],
        )

    def _item(
        self,
        step: int,
        index: int,
        frames: int,
        pool: np.ndarray | None,
        chosen: int | None,
        failures: list[str],
    ) -> tuple[Tensor, int, int, int, list[int], list[int]]:
        """Return audio, frames, depth, task, text and decoder input; a broken file is replaced by another."""
        draw = np.random.default_rng((self.seed, step, index + 1))  # a trailing 0 would be the step's own key
        depth = int(draw.choice(self.depths))
        gain = 10 ** (draw.uniform(-self.config.gain, self.config.gain) / 20)
        samples, rate = frames * self.model.frame_size, self.model.sample_rate
        for _ in range(MAX_ATTEMPTS):
            if chosen is not None:
                number, chosen = chosen, None
            elif pool is not None:
                number = int(draw.choice(pool))
            else:
                point = draw.random() * self.edges[-1]
                number = int(np.searchsorted(self.edges, point, side="right"))
            clip = self.clips[number]
            room = max(0, round(clip.duration * rate) - samples)
            try:
                samples_read = _read(clip.audio, int(draw.integers(0, room + 1)), samples, rate)
            except AudioError as error:
                failures.append(str(error))
                continue
            audio = torch.zeros(samples)
            audio[: len(samples_read)] = samples_read
            audio *= min(gain, 1 / max(float(audio.abs().amax()), 1e-3))
            text = self.encode(clip.text) if self.encode and clip.text and room == 0 else []
            used = max(1, -(-len(samples_read) // self.model.frame_size))
            return audio, used, depth, TASKS.index(clip.task), text, self._swap_tokens(text, draw)
        raise ValueError(f"{MAX_ATTEMPTS} files in a row cannot be read: {'; '.join(failures[-3:])}")


def calibration(clips: Sequence[Clip], model: TokenizerConfig, seed: int) -> Float[Tensor, "n b s"]:
    """Draw crops to calculate codebooks from, `FRAMES_PER_ROW` frames for each row of one.

    Returns:
        Batches of crops.
    """
    seconds = 8 * CALIBRATION_CROP
    steps = math.ceil(FRAMES_PER_ROW * model.codebook_size / model.frame_rate / seconds)
    batches = TokenizerBatchConfig(batch_seconds=seconds, crop_seconds=CALIBRATION_CROP)
    data = TokenizerBatches(clips, batches, model, None, seed=seed, steps=steps)
    return torch.stack([data[i].audio for i in range(len(data))])


def _read(path: Path, first: int, samples: int, sample_rate: int) -> Float[Tensor, " s"]:
    """Read a part of a file: by seeking where it has the right format, else out of the whole file."""
    try:
        with soundfile.SoundFile(path) as file:
            if file.samplerate == sample_rate and file.channels == 1 and file.frames > 0:
                file.seek(min(first, file.frames))
                part = torch.from_numpy(file.read(samples, dtype="float32"))
                if part.isfinite().all():
                    return part.clamp(-1, 1)
    except (soundfile.SoundFileError, TypeError, OSError):
        pass  # reading the whole file says what is wrong with it
    return load_audio(path, sample_rate)[first : first + samples]
