"""The voice vector of a clip: a speaker embedding, computed from codes.

The embedding of a frame is the sum over its codes, as in CAT-ASR. Residual blocks of dilated convolutions
add what is around it; the states behind all blocks are pooled over time with attention, as mean and standard
deviation (Okabe et al. 2018; Desplanques et al. 2020), and projected. Only the direction has a meaning:
vectors have length 1, and the cosine of two says how likely they are of one speaker.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from torch import Tensor, nn

from tokenizer.io import checkpoint

MIN_VARIANCE = 1e-5
"""Least variance of pooled states: the square root has a finite slope there."""


@dataclass(frozen=True, kw_only=True)
class VoiceVectorConfig:
    """The shape of a voice-vector encoder."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    num_codebooks: int = 12
    codebook_size: int = 1024
    dim: int = 256
    """Width of the states."""
    dilations: tuple[int, ...] = (1, 2, 3, 4)
    """Frames between the taps of each block's convolution, by block."""
    kernel: int = 3
    """Taps of a convolution; an odd number, so that a frame is in the middle."""
    vector_dim: int = 192
    """Width of the voice vector."""

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0 or not self.dilations:
            raise ValueError(
                f"kernel={self.kernel}, dilations={self.dilations}: give an odd kernel, and one block or more"
            )


class VoiceVectorBlock(nn.Module):
    """A depthwise convolution over time, then a feed-forward block, each added to its input."""

    def __init__(self, config: VoiceVectorConfig, dilation: int) -> None:
        super().__init__()
        dim = config.dim
        reach = dilation * (config.kernel // 2)
        self.near = nn.Conv1d(dim, dim, config.kernel, dilation=dilation, padding=reach, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Float[Tensor, "b t d"], valid: Bool[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Compute the next states; padding stays zero, as it is beyond the ends of a clip.

        Args:
            x: States.
            valid: False on padding.
        """
        return (x + self.mlp(self.norm(x + self.near(x.mT).mT))) * valid[..., None]


class VoiceVectorEncoder(nn.Module):
    """From the codes of a clip to its voice vector, at any depth."""

    def __init__(self, config: VoiceVectorConfig) -> None:
        super().__init__()
        self.config = config
        self.code_embeddings = cast(
            "list[nn.Embedding]",
            nn.ModuleList(
                nn.Embedding(config.codebook_size, config.dim) for _ in range(config.num_codebooks)
            ),
        )
        self.blocks = cast(
            "list[VoiceVectorBlock]",
            nn.ModuleList(VoiceVectorBlock(config, dilation) for dilation in config.dilations),
        )
        width = config.dim * len(config.dilations)
        self.attention = nn.Sequential(
            nn.Linear(3 * width, config.dim), nn.Tanh(), nn.Linear(config.dim, width)
        )
        self.project = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, config.vector_dim))
        for table in self.code_embeddings:
            nn.init.normal_(table.weight, std=0.1)

    def forward(
        self,
        codes: Int[Tensor, "b t k"],
        frames: Int[Tensor, " b"] | None = None,
        depth: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b v"]:
        """Compute the voice vectors of several clips.

        Args:
            codes: Codes [b, t, k], padded on the right with any valid codes; columns beyond `num_codebooks`
                are not read.
            frames: Number of frames of each clip; None where all are as long as `codes`.
            depth: Number of codebooks of each clip that are read, the first ones; None reads all.

        Returns:
            Vectors [b, v] of length 1, float32.

        Raises:
            ValueError: A clip has no frames, or `depth` is larger than the number of codebooks.
        """
        available = min(codes.shape[2], self.config.num_codebooks)
        frames = codes.new_full((len(codes),), codes.shape[1]) if frames is None else frames
        depth = codes.new_full((len(codes),), available) if depth is None else depth
        if int(depth.max()) > available or int(frames.min()) < 1:
            raise ValueError(
                f"depth={int(depth.max())} of {available} codebooks, {int(frames.min())} frames: "
                "give 1 frame or more, and no more codebooks than there are"
            )
        valid = torch.arange(codes.shape[1], device=codes.device) < frames[:, None]
        x = self.code_embeddings[0].weight.new_zeros(*codes.shape[:2], self.config.dim)
        for k, table in enumerate(self.code_embeddings[: int(depth.max())]):
            x = x + (k < depth)[:, None, None] * table(codes[..., k])
        x, states = x * valid[..., None], []
        for block in self.blocks:
            x = block(x, valid)
            states.append(x)
        return F.normalize(self.project(self._pool(torch.cat(states, -1), valid)).float(), dim=-1)

    def _pool(self, x: Float[Tensor, "b t w"], valid: Bool[Tensor, "b t"]) -> Float[Tensor, "b u"]:
        """Pool mean and deviation over time; each channel has its own weights, which depend on all frames."""
        uniform = valid[..., None] / valid.sum(1)[:, None, None]
        context = torch.cat(_moments(x, uniform), -1)[:, None].expand(-1, x.shape[1], -1)
        scores = self.attention(torch.cat([x, context], -1)).masked_fill(~valid[..., None], -torch.inf)
        return torch.cat(_moments(x, scores.softmax(1)), -1)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        checkpoint.save(folder, self.config, self.state_dict())

    @classmethod
    def from_pretrained(cls, model: str | Path) -> "VoiceVectorEncoder":
        """Load the model of a folder or hub id, as `save_pretrained` writes it."""
        folder = checkpoint.local_folder(model)
        with torch.device("meta"):
            encoder = cls(checkpoint.read_config(VoiceVectorConfig, folder / checkpoint.CONFIG))
        checkpoint.load_weights(encoder, checkpoint.read_weights(folder), folder)
        return encoder.float().eval()


def _moments(
    x: Float[Tensor, "b t w"], weights: Float[Tensor, "b t #w"]
) -> tuple[Float[Tensor, "b w"], Float[Tensor, "b w"]]:
    """Return the weighted mean and standard deviation over time."""
    mean = (weights * x).sum(1)
    variance = (weights * (x - mean[:, None]).square()).sum(1)
    return mean, variance.clamp(min=MIN_VARIANCE).sqrt()


def mini() -> VoiceVectorConfig:
    """Return the embedded default: 6.5M weights, of which 3.1M are embeddings of codes."""
    return VoiceVectorConfig()


def tiny() -> VoiceVectorConfig:
    """Return a shape of a few thousand weights, for tests; it fits the `tiny` tokenizer."""
    return VoiceVectorConfig(num_codebooks=6, codebook_size=32, dim=16, dilations=(1, 2), vector_dim=8)
