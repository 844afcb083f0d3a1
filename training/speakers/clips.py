"""Encoded utterances by speaker, in memory: batches for the training of voice vectors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from training.data.code_shards import Codes


@dataclass(frozen=True)
class SpeakerBatch:
    """Crops of several speakers, padded on the right with zeros."""

    codes: Int[Tensor, "b t k"]
    frames: Int[Tensor, " b"]
    speaker: Int[Tensor, " b"]
    """Positions in `SpeakerClips.speakers`."""

    def to(self, device: torch.device) -> "SpeakerBatch":
        """Return the batch on a device."""
        return SpeakerBatch(self.codes.to(device), self.frames.to(device), self.speaker.to(device))


class SpeakerClips:
    """Utterances whose speakers are known."""

    def __init__(self, codes: Sequence[np.ndarray], speakers: Sequence[str]) -> None:
        """Sort utterances by speaker.

        Args:
            codes: Codes of each utterance, [t, k].
            speakers: Speaker of each utterance, by name; utterances without a name are left out.

        Raises:
            ValueError: There are no two speakers.
        """
        named = [i for i, name in enumerate(speakers) if name]
        self.speakers = sorted({speakers[i] for i in named})
        if len(self.speakers) < 2:
            raise ValueError(f"the codes name {len(self.speakers)} speakers: give utterances of 2 or more")
        positions = {name: position for position, name in enumerate(self.speakers)}
        self.codes = [codes[i] for i in named]
        self.numbers = [positions[speakers[i]] for i in named]
        self.by_speaker: list[list[int]] = [[] for _ in self.speakers]
        for index, number in enumerate(self.numbers):
            self.by_speaker[number].append(index)

    @classmethod
    def read(cls, codes: Codes) -> "SpeakerClips":
        """Read all utterances of a folder of shards."""
        return cls([np.array(row["codes"], dtype=np.int16) for row in codes], codes["speaker"][:])

    def batch(self, generator: torch.Generator, clips: int, max_frames: int) -> SpeakerBatch:
        """Draw different speakers, an utterance of each, and a crop of it.

        Args:
            generator: Source of the draws.
            clips: Number of crops; there are at most as many as speakers.
            max_frames: Frames of a crop; a shorter utterance is taken whole.
        """
        crops = []
        for number in torch.randperm(len(self.speakers), generator=generator)[:clips].tolist():
            clips_of_speaker = self.by_speaker[number]
            index = clips_of_speaker[int(torch.randint(len(clips_of_speaker), (), generator=generator))]
            room = max(0, len(self.codes[index]) - max_frames)
            crops.append((index, int(torch.randint(room + 1, (), generator=generator))))
        return self.collate(crops, max_frames)

    def collate(self, crops: Sequence[tuple[int, int]], max_frames: int) -> SpeakerBatch:
        """Cut crops of at most `max_frames` frames, each named by (utterance, first frame), and pad them."""
        parts = [self.codes[index][first : first + max_frames] for index, first in crops]
        frames = torch.tensor([len(part) for part in parts])
        codes = torch.zeros(len(parts), int(frames.max()), parts[0].shape[1], dtype=torch.long)
        for slot, part in zip(codes, parts, strict=True):
            slot[: len(part)] = torch.from_numpy(part).long()
        return SpeakerBatch(codes, frames, torch.tensor([self.numbers[index] for index, _ in crops]))
