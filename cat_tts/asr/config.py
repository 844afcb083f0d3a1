"""The shape of CAT-ASR: a frozen dataclass, and presets that are plain functions."""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from cat_tts.config import TransformerConfig


@dataclass(frozen=True, kw_only=True)
class ASRTokens:
    """Ids of the text vocabulary that mark where audio and text begin and end."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    audio_start: int
    audio_end: int
    text_end: int
    """Ends every transcript."""

    def __post_init__(self) -> None:
        ids = (self.audio_start, self.audio_end, self.text_end)
        if len(set(ids)) < len(ids) or min(ids) < 0:
            raise ValueError(
                f"audio_start, audio_end and text_end are {ids}: give three different ids from 0"
            )


@dataclass(frozen=True, kw_only=True)
class ASRConfig:
    """A decoder-only LLM that reads codes and writes text (paper Appendix E)."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    llm: TransformerConfig
    text_vocab_size: int
    num_codebooks: int = 32
    codebook_size: int = 1024
    tokens: ASRTokens
    tied: bool = True
    """The text embeddings are the head as well, as in Qwen3 up to 4B."""
    rope_theta: float = 1_000_000.0
    max_positions: int = 40_960
    bidirectional: bool = False
    """Frames attend to later frames too, text remains causal. Ours, not the paper's."""
    ctc_layer: int | None = None
    """After this many layers, a second head predicts the text (by CTC) from the frames alone. Ours, not the
    paper's: without it a small model hardly uses the audio; see docs/cat-asr.md."""
    phonemes: tuple[str, ...] = ()
    """Vocabulary of the CTC head; UTF-8 bytes where there are none."""

    def __post_init__(self) -> None:
        tokens = self.tokens
        last = max(tokens.audio_start, tokens.audio_end, tokens.text_end)
        if last >= self.text_vocab_size:
            raise ValueError(f"token {last} is no id of a vocabulary of {self.text_vocab_size}")
        if self.ctc_layer is not None and not 1 <= self.ctc_layer <= self.llm.num_layers:
            raise ValueError(f"ctc_layer={self.ctc_layer}: choose 1 to {self.llm.num_layers}, or None")
        if self.phonemes and self.ctc_layer is None:
            raise ValueError("phonemes are the vocabulary of a second head: give its ctc_layer")

    @property
    def ctc_vocab_size(self) -> int:
        """Number of classes of the CTC head without the blank, which is the last."""
        return len(self.phonemes) or 256


def paper() -> ASRConfig:
    """Return the paper's shape: Qwen3-1.7B with 32 tables of 1024 codes (67.1M weights)."""
    return ASRConfig(
        llm=TransformerConfig(
            dim=2048, num_layers=28, num_heads=16, num_kv_heads=8, head_dim=128, ffn_dim=6144
        ),
        text_vocab_size=151_936,
        tokens=ASRTokens(audio_start=151_652, audio_end=151_653, text_end=151_643),
    )


def mini() -> ASRConfig:
    """Return the shape for the codes of the `mini` tokenizer: 8.1M weights, 3.1M of them code tables."""
    return ASRConfig(
        llm=TransformerConfig(dim=256, num_layers=6, num_heads=8, num_kv_heads=4, head_dim=32, ffn_dim=768),
        text_vocab_size=512,
        num_codebooks=12,
        tokens=ASRTokens(audio_start=1, audio_end=2, text_end=0),
        rope_theta=10_000.0,
        max_positions=4096,
        bidirectional=True,
        ctc_layer=5,
    )


def tiny() -> ASRConfig:
    """Return a shape of a few thousand weights, for tests; fits the `tiny` tokenizer."""
    return ASRConfig(
        llm=TransformerConfig(dim=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, ffn_dim=64),
        text_vocab_size=300,
        num_codebooks=6,
        codebook_size=32,
        tokens=ASRTokens(audio_start=1, audio_end=2, text_end=0),
        rope_theta=10_000.0,
        max_positions=1024,
        bidirectional=True,
        ctc_layer=1,
    )
