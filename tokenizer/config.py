"""The shape of a CAT tokenizer: frozen dataclasses, and plain functions as presets."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

from pydantic import ConfigDict, model_serializer


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One Transformer stage.

    In the encoder `patch_size` steps are folded into one before it, in the decoder one step is unfolded into
    `patch_size` after it.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    patch_size: int
    input_dim: int
    dim: int
    output_dim: int
    num_layers: int
    num_heads: int
    ffn_dim: int

    def __post_init__(self) -> None:
        if self.num_heads < 1 or self.dim % self.num_heads or (self.dim // self.num_heads) % 2:
            raise ValueError(
                f"dim={self.dim} with num_heads={self.num_heads}: a head must have a whole, even width"
            )


@dataclass(frozen=True, kw_only=True)
class QuantizerConfig:
    """Residual vector quantizer of factorised, L2-normalised codebooks (paper 3.1, A.1)."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    num_codebooks: int = 32
    codebook_size: int = 1024
    codebook_dim: int = 8
    dim: int = 512
    """Width of the residual, between the projections from and to the stages."""


@dataclass(frozen=True, kw_only=True)
class VocoderConfig:
    """A vocoder (not in the paper): the decoder sets filters for pulses and noise; pitches are in Hz."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    bands: int = 64
    """Bands of each of the two filters."""
    impulse: int = 480
    """Samples of a filter's impulse response."""
    lowest_pitch: float = 60.0
    highest_pitch: float = 500.0

    def __post_init__(self) -> None:
        if self.bands < 2 or self.impulse < 1:
            raise ValueError(
                f"bands={self.bands}, impulse={self.impulse}: give 2 bands and 1 sample, or more"
            )
        if not 0 < self.lowest_pitch < self.highest_pitch:
            raise ValueError(f"no pitch is from {self.lowest_pitch} to {self.highest_pitch} Hz")

    @property
    def controls(self) -> int:
        """Values of a step: a pitch, and the magnitudes of both filters."""
        return 1 + 2 * self.bands


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """A causal audio tokenizer: encoder stages, residual quantizer, decoder stages (paper 3.1)."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    encoder: tuple[StageConfig, ...]
    decoder: tuple[StageConfig, ...]
    quantizer: QuantizerConfig
    code_dim: int = 768
    """Width of the latents, from the encoder to the quantizer and from there to the decoder."""
    sample_rate: int = 24_000
    context_seconds: float = 10.0
    """How far back each layer attends, the present step included."""
    rope_period: float = 10_000.0
    layer_scale: float = 0.01
    """Initial value of the residual branches' gains; small models learn faster from 0.1."""
    vocoder: VocoderConfig | None = None
    """Not the paper's: the decoder's outputs are controls of a vocoder, not patches of samples."""

    def __post_init__(self) -> None:
        widths = [(self.encoder[0].patch_size, self.encoder[0].input_dim)]
        widths += [(a.output_dim * b.patch_size, b.input_dim) for a, b in pairwise(self.encoder)]
        widths += [(self.encoder[-1].output_dim, self.code_dim), (self.code_dim, self.decoder[0].input_dim)]
        widths += [(a.output_dim, b.input_dim * a.patch_size) for a, b in pairwise(self.decoder)]
        last = self.decoder[-1]
        widths += [(last.output_dim, self.vocoder.controls if self.vocoder else last.patch_size)]
        for position, (actual, expected) in enumerate(widths):
            if actual != expected:
                raise ValueError(f"widths do not fit at joint {position}: {actual} features meet {expected}")
        if math.prod(s.patch_size for s in self.decoder) != self.frame_size:
            raise ValueError("encoder and decoder fold different numbers of samples into a frame")
        if self.context_seconds * self.frame_rate < 1:
            raise ValueError(f"context_seconds={self.context_seconds} is shorter than a frame: give more")
        if self.vocoder and self.vocoder.highest_pitch > self.sample_rate / 4:
            raise ValueError(
                f"highest_pitch={self.vocoder.highest_pitch} at {self.sample_rate} samples a second: "
                "give at most a quarter of that"
            )

    @model_serializer(mode="wrap")
    def _without_none(self, serialize: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Leave out a vocoder that is None, so that the JSON is as before there were vocoders."""
        return {name: value for name, value in serialize(self).items() if value is not None}

    @property
    def frame_size(self) -> int:
        """Samples in a frame."""
        return math.prod(stage.patch_size for stage in self.encoder)

    @property
    def frame_rate(self) -> float:
        """Frames in a second."""
        return self.sample_rate / self.frame_size

    @property
    def num_codebooks(self) -> int:
        """Number of codebooks, the largest depth."""
        return self.quantizer.num_codebooks

    @property
    def codebook_size(self) -> int:
        """Codes in a codebook."""
        return self.quantizer.codebook_size

    def bitrate(self, depth: int) -> float:
        """Return the bits per second of a code stream of `depth` codebooks."""
        return depth * self.frame_rate * math.log2(self.codebook_size)


def mirrored(
    *,
    patches: tuple[int, ...],
    dims: tuple[int, ...],
    layers: tuple[int, ...],
    ffn_dims: tuple[int, ...],
    head_dim: int,
    code_dim: int,
    quantizer: QuantizerConfig,
    layer_scale: float,
    vocoder: VocoderConfig | None = None,
) -> TokenizerConfig:
    """Return a tokenizer whose decoder is the mirror image of its encoder.

    The output of every stage is exactly what the next one folds into its own width, so that a projection is
    needed only where two widths differ.

    Args:
        patches: By encoder stage: steps that it folds into one.
        dims: By encoder stage: its width.
        layers: By encoder stage: its number of layers.
        ffn_dims: By encoder stage: the width of its feed-forward layers.
        head_dim: Width of an attention head, in all stages.
        code_dim: Width of the latents.
        quantizer: The quantizer's shape.
        layer_scale: Initial value of the residual branches' gains.
        vocoder: The vocoder's shape, where the decoder ends in one.
    """
    outputs = [d // p for d, p in zip(dims[1:], patches[1:], strict=True)]
    encoder, decoder = [], []
    for i, dim in enumerate(dims):
        first, last = i == 0, i == len(dims) - 1
        inner = {"dim": dim, "num_layers": layers[i], "num_heads": dim // head_dim}
        inner |= {"ffn_dim": ffn_dims[i], "patch_size": patches[i]}
        folded = patches[0] if first else dim
        encoder.append(StageConfig(input_dim=folded, output_dim=code_dim if last else outputs[i], **inner))
        out = vocoder.controls if first and vocoder else folded
        decoder.append(StageConfig(input_dim=code_dim if last else outputs[i], output_dim=out, **inner))
    return TokenizerConfig(
        encoder=tuple(encoder),
        decoder=tuple(decoder[::-1]),
        quantizer=quantizer,
        code_dim=code_dim,
        layer_scale=layer_scale,
        vocoder=vocoder,
    )


def paper() -> TokenizerConfig:
    """Return the paper's 1.6B model as it was published (1.77B with the projections between the stages)."""
    return mirrored(
        patches=(240, 2, 2, 2),
        dims=(768, 768, 768, 1280),
        layers=(12, 12, 12, 32),
        ffn_dims=(3072, 3072, 3072, 5120),
        head_dim=64,
        code_dim=768,
        quantizer=QuantizerConfig(),
        layer_scale=0.01,
    )


def scaled(hidden: int) -> TokenizerConfig:
    """Return a model of Figure 5's scaling family: one width for all stages, all else as in `paper`.

    `hidden` 256, 384, 512 and 768 give the figure's 319M, 505M, 710M and 1169M parameters within 1 %.
    """
    return mirrored(
        patches=(240, 2, 2, 2),
        dims=(hidden,) * 4,
        layers=(12, 12, 12, 32),
        ffn_dims=(3072, 3072, 3072, 5120),
        head_dim=64,
        code_dim=768,
        quantizer=QuantizerConfig(),
        layer_scale=0.01,
    )


def filter_bank_encoder(*, head_dim: int, dim: int, layers: int, code_dim: int) -> tuple[StageConfig, ...]:
    """Return encoder stages at 50, 50, 25 and 12.5 Hz; the first two have room for a filter bank and its log.

    `dim` is the width of the last stage, and `layers` the number of its layers.
    """
    shapes = (  # patch, input, width, output, feed-forward, layers
        (480, 480, 896, 448, 1664, 1),
        (1, 448, 448, 208, 1792, 1),
        (2, 416, 416, dim // 2, 1536, 1),
        (2, dim, dim, code_dim, 4 * dim, layers),
    )
    return tuple(
        StageConfig(
            patch_size=patch,
            input_dim=folded,
            dim=width,
            output_dim=output,
            num_layers=count,
            num_heads=width // head_dim,
            ffn_dim=ffn,
        )
        for patch, folded, width, output, ffn, count in shapes
    )


def mini() -> TokenizerConfig:
    """Return the embedded default, which trains on a CPU and runs many times faster than real time.

    The first two stages of its encoder have room for a filter bank and its logarithm
    (training.audio_tokenizer.initialization.filter_bank), and its decoder ends in a vocoder: neither phase
    nor loudness has to be learnt.
    """
    decoder = mirrored(
        patches=(240, 2, 2, 2),
        dims=(320, 192, 256, 320),
        layers=(1, 1, 2, 4),
        ffn_dims=(1280, 768, 1024, 1280),
        head_dim=32,
        code_dim=256,
        quantizer=QuantizerConfig(num_codebooks=12, codebook_dim=16, dim=64),
        layer_scale=0.1,
        vocoder=VocoderConfig(),
    )
    return replace(decoder, encoder=filter_bank_encoder(head_dim=32, dim=320, layers=4, code_dim=256))


def small() -> TokenizerConfig:
    """Return an embedded default that needs minutes of a GPU to train: 34M weights, 16 codebooks."""
    decoder = mirrored(
        patches=(240, 2, 2, 2),
        dims=(320, 256, 320, 448),
        layers=(1, 2, 2, 3),
        ffn_dims=(1280, 1024, 1280, 1536),
        head_dim=32,
        code_dim=256,
        quantizer=QuantizerConfig(num_codebooks=16, codebook_dim=16, dim=64),
        layer_scale=0.1,
        vocoder=VocoderConfig(),
    )
    return replace(decoder, encoder=filter_bank_encoder(head_dim=32, dim=448, layers=4, code_dim=256))


def tiny() -> TokenizerConfig:
    """Return a tokenizer of a few thousand weights, for tests."""
    return mirrored(
        patches=(240, 2, 2, 2),
        dims=(16, 16, 16, 32),
        layers=(1, 1, 1, 1),
        ffn_dims=(32, 32, 32, 64),
        head_dim=8,
        code_dim=24,
        quantizer=QuantizerConfig(num_codebooks=6, codebook_size=32, codebook_dim=4, dim=16),
        layer_scale=0.1,
    )
