"""The shape of CAT-TTS: frozen dataclasses, and presets that are plain functions."""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """A Qwen3-style Transformer: RMSNorm, grouped queries with normalised heads, SwiGLU."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_dim: int


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Ids of the text channel that are not text."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    pad: int
    audio_start: int
    audio_end: int
    slot: int
    """Stands in the text channel of every frame that is spoken."""


@dataclass(frozen=True, kw_only=True)
class ChatTokens:
    """Ids that only the published conversation format has."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    im_start: int
    im_end: int
    user_slot: int
    """Stands in the text channel of every frame of a reference recording."""


@dataclass(frozen=True, kw_only=True)
class TTSConfig:
    """Temporal Transformer over frames, Depth Transformer over the codes of a frame (paper 3.3, C)."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    temporal: TransformerConfig
    depth: TransformerConfig
    text_vocab_size: int
    num_codebooks: int = 32
    codebook_size: int = 1024
    tokens: SpecialTokens
    chat: ChatTokens | None = None
    """Present in models that were trained on the published conversation format."""
    adapter_dim: int | None = None
    """Width of the published model's MLPs before and after the depth layers; None: one projection."""
    full_text_head: bool = False
    """The published model decides between continuing and stopping with a head over all text ids."""
    rope_theta: float = 1_000_000.0
    time_aligned_positions: bool = False
    """Put text rows where on the time axis of the frames they should be spoken, see `sequences.rows`.
    Small models then need not learn where they are in the text; the paper's count rows."""
    token_durations: tuple[float, ...] | None = None
    """For `time_aligned_positions`: how many frames each text id usually takes; None: all alike."""
    max_positions: int = 40_960
    max_prompt_frames: int = 750
    """Longest prompt: beyond what training has shown, a model loses the voice or the text."""
    speaker_dim: int | None = None
    """Width of the voice vector of the prompt (`cat_tts.speakers`) that is projected and added to every row;
    None: the model knows the voice from the codes of the prompt alone, as the paper's does."""

    def __post_init__(self) -> None:
        if self.token_durations is not None and len(self.token_durations) != self.text_vocab_size:
            raise ValueError(
                f"token_durations of {len(self.token_durations)} ids, "
                f"but text_vocab_size={self.text_vocab_size}"
            )

    @property
    def pad_code(self) -> int:
        """The value of text rows in their code columns."""
        return self.codebook_size


def paper() -> TTSConfig:
    """Return the paper's shape as published: Qwen3-1.7B and four depth blocks (556 tensors, 3.06B)."""
    return TTSConfig(
        temporal=TransformerConfig(
            dim=2048, num_layers=28, num_heads=16, num_kv_heads=8, head_dim=128, ffn_dim=6144
        ),
        depth=TransformerConfig(
            dim=1536, num_layers=4, num_heads=16, num_kv_heads=8, head_dim=128, ffn_dim=8960
        ),
        text_vocab_size=155_648,
        tokens=SpecialTokens(pad=151_643, audio_start=151_652, audio_end=151_653, slot=151_656),
        chat=ChatTokens(im_start=151_644, im_end=151_645, user_slot=151_654),
        adapter_dim=2048,
        full_text_head=True,
    )


def mini() -> TTSConfig:
    """Return the shape of the embedded default, for the codes of the `mini` tokenizer."""
    return TTSConfig(
        temporal=TransformerConfig(
            dim=256, num_layers=6, num_heads=4, num_kv_heads=2, head_dim=64, ffn_dim=768
        ),
        depth=TransformerConfig(dim=192, num_layers=2, num_heads=3, num_kv_heads=3, head_dim=64, ffn_dim=512),
        text_vocab_size=512,
        num_codebooks=12,
        tokens=SpecialTokens(pad=0, audio_start=1, audio_end=2, slot=3),
        rope_theta=10_000.0,
        time_aligned_positions=True,
        max_positions=4096,
        max_prompt_frames=200,
    )


def small() -> TTSConfig:
    """Return the shape for the codes of the `small` tokenizer: 29M weights."""
    return TTSConfig(
        temporal=TransformerConfig(
            dim=384, num_layers=8, num_heads=6, num_kv_heads=3, head_dim=64, ffn_dim=1024
        ),
        depth=TransformerConfig(dim=256, num_layers=3, num_heads=4, num_kv_heads=4, head_dim=64, ffn_dim=768),
        text_vocab_size=512,
        num_codebooks=16,
        tokens=SpecialTokens(pad=0, audio_start=1, audio_end=2, slot=3),
        rope_theta=10_000.0,
        time_aligned_positions=True,
        max_positions=4096,
        max_prompt_frames=200,
    )


def tiny() -> TTSConfig:
    """Return a shape of a few thousand weights, for tests; fits the `tiny` tokenizer."""
    return TTSConfig(
        temporal=TransformerConfig(dim=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, ffn_dim=64),
        depth=TransformerConfig(dim=24, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, ffn_dim=48),
        text_vocab_size=300,
        num_codebooks=6,
        codebook_size=32,
        tokens=SpecialTokens(pad=0, audio_start=1, audio_end=2, slot=3),
        rope_theta=10_000.0,
        time_aligned_positions=True,
        max_positions=1024,
        max_prompt_frames=100,
    )
