"""The shape of the semantic head: a frozen dataclass, and presets that are plain functions."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict

from training.data.manifest import TASKS

BYTES_END = 256
"""Id that ends a text of bytes."""


@dataclass(frozen=True, kw_only=True)
class SemanticConfig:
    """The shape of a Qwen2 with tied embeddings behind a projection of the quantizer's output."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    latent_dim: int
    """Width of the quantizer's output."""
    dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    ffn_dim: int
    vocab_size: int
    end: int
    """Id of the token that ends every text."""
    text: Literal["bytes", "huggingface"]
    """Tokens are UTF-8 bytes, or those of a `tokenizer.json` that lies in the checkpoint."""
    rope_theta: float = 1_000_000.0
    tasks: tuple[str, ...] = TASKS
    ctc_layer: int | None = None
    """Layers after which a CTC head (training.audio_tokenizer.heads.ctc), if any, reads the frames, so that
    the layers below learn recognition before those above learn to write; None: it reads the latents. Not the
    paper's."""

    def __post_init__(self) -> None:
        if self.tasks != TASKS:
            raise ValueError(
                f"tasks {', '.join(self.tasks)} but this version knows {', '.join(TASKS)}, in this order: "
                "load the checkpoint with the version that wrote it"
            )
        if self.dim % self.num_heads or self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"dim={self.dim}, num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}: "
                "each must be a multiple of the next"
            )
        if not 0 <= self.end < self.vocab_size:
            raise ValueError(f"end={self.end} is no id of a vocabulary of {self.vocab_size}")
        if self.ctc_layer is not None and not 1 <= self.ctc_layer <= self.num_layers:
            raise ValueError(f"ctc_layer={self.ctc_layer}: choose 1 to {self.num_layers}, or None")


def paper() -> SemanticConfig:
    """Qwen2.5-0.5B, behind the published tokenizer."""
    return SemanticConfig(
        latent_dim=768,
        dim=896,
        num_layers=24,
        num_heads=14,
        num_kv_heads=2,
        ffn_dim=4864,
        vocab_size=151_936,
        end=151_643,
        text="huggingface",
    )


def mini() -> SemanticConfig:
    """4.9M parameters, behind the mini tokenizer."""
    return SemanticConfig(
        latent_dim=256,
        dim=256,
        num_layers=6,
        num_heads=8,
        num_kv_heads=4,
        ffn_dim=768,
        ctc_layer=4,
        vocab_size=BYTES_END + 1,
        end=BYTES_END,
        text="bytes",
        rope_theta=10_000.0,
    )


def tiny() -> SemanticConfig:
    """A few thousand weights, for tests; fits the tiny tokenizer."""
    return SemanticConfig(
        latent_dim=24,
        dim=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        ffn_dim=64,
        vocab_size=BYTES_END + 1,
        end=BYTES_END,
        text="bytes",
        rope_theta=10_000.0,
    )
