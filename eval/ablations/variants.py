"""The trainings that the paper's ablations of the tokenizer compare (Figures 4 to 6), at a chosen scale."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from tokenizer import AudioTokenizer
from tokenizer import config as tokenizers
from tokenizer.config import QuantizerConfig, TokenizerConfig
from training.audio_tokenizer import recipes
from training.audio_tokenizer.recipes import TokenizerTraining


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The scale of an ablation: the recipe that all variants share, and the models of Figure 5."""

    base: TokenizerTraining
    family: Callable[[int], TokenizerConfig]
    widths: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class AblationVariant:
    """One curve of a figure."""

    name: str
    options: TokenizerTraining
    start: "AblationVariant | None" = None
    """The run that this one continues, on a copy."""


def small(width: int) -> TokenizerConfig:
    """Return a model of the family for CPUs: the layers of `mini`, one width for all stages, 8 codebooks.

    Args:
        width: The width of every stage.
    """
    return tokenizers.mirrored(
        patches=(240, 2, 2, 2),
        dims=(width,) * 4,
        layers=(1, 1, 2, 4),
        ffn_dims=(4 * width,) * 4,
        head_dim=32,
        code_dim=width,
        quantizer=QuantizerConfig(num_codebooks=8, dim=64),
        layer_scale=0.1,
    )


def paper() -> Scale:
    """Return the published scale: 1,020k steps of 2.5 h of audio each."""
    return Scale(base=recipes.paper(), family=tokenizers.scaled, widths=(256, 384, 512, 768))


def mini() -> Scale:
    """Return a scale of minutes of a CPU core for each variant.

    It has no semantic head, which gains nothing in so few steps.
    """
    base = recipes.mini()
    base = replace(
        base,
        steps=800,
        save_every=200,
        shape=replace(base.shape, model=small(128)),
        optimizer=replace(base.optimizer, warmup=50, ema=0.98),  # a longer memory would hold the beginning
        weights=replace(base.weights, semantic=0.0),
        batches=replace(base.batches, utterances=0.0),
    )
    return Scale(base=base, family=small, widths=(64, 96, 128, 192))


def tiny() -> Scale:
    """Return a scale of seconds, for tests."""
    base = recipes.tiny()
    base = replace(base, weights=replace(base.weights, semantic=0.0))
    return Scale(base=base, family=lambda width: base.shape.model, widths=(16, 32))


SCALES: dict[str, Callable[[], Scale]] = {"paper": paper, "mini": mini, "tiny": tiny}


def end_to_end(scale: Scale) -> list[AblationVariant]:
    """Return the variants of Figure 4: a stage 2 that trains everything, or keeps encoder and quantizer.

    Args:
        scale: The scale of the ablation.

    Returns:
        Stage 1, which both variants of stage 2 continue, and these two.
    """
    base = scale.base
    begin = base.steps // 2
    whole = replace(base, adversarial_from=begin, run=base.run / "end-to-end")
    partial = replace(whole, trainable="partial", run=base.run / "partial")
    first = replace(
        base,
        steps=begin,
        adversarial_from=None,
        optimizer=replace(base.optimizer, decay=0.0),
        run=base.run / "stage-1",
    )
    common = AblationVariant(name="stage 1", options=first)
    return [
        common,
        AblationVariant(name="stage 2, end-to-end", options=whole, start=common),
        AblationVariant(name="stage 2, partial", options=partial, start=common),
    ]


def size(scale: Scale) -> list[AblationVariant]:
    """Return the variants of Figure 5: the same training of wider and wider models.

    Args:
        scale: The scale of the ablation.

    Returns:
        A variant for each width, named by its millions of parameters.
    """
    variants = []
    for width in scale.widths:
        model = scale.family(width)
        millions = parameters(model) / 1e6
        shape = replace(scale.base.shape, model=model)
        options = replace(_first_stage(scale), shape=shape, run=scale.base.run / f"width-{width}")
        variants.append(
            AblationVariant(
                name=f"{millions:.1f}M" if millions < 100 else f"{millions:.0f}M", options=options
            )
        )
    return variants


def batch(scale: Scale) -> list[AblationVariant]:
    """Return the variants of Figure 6: the same number of steps, each of more audio.

    Args:
        scale: The scale of the ablation.

    Returns:
        Variants with a quarter, half, once and twice the seconds of audio a step.
    """
    base, variants = _first_stage(scale), []
    for factor in (0.25, 0.5, 1.0, 2.0):
        seconds = base.batches.batch_seconds * factor
        options = replace(
            base,
            batches=replace(base.batches, batch_seconds=seconds),
            run=base.run / f"batch-{seconds:g}",
        )
        variants.append(AblationVariant(name=f"{seconds:g} s a step", options=options))
    return variants


def parameters(config: TokenizerConfig) -> int:
    """Return the number of parameters of a tokenizer of this shape; nothing is allocated.

    Args:
        config: The shape of the tokenizer.
    """
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in AudioTokenizer(config).parameters())


def _first_stage(scale: Scale) -> TokenizerTraining:
    """Return the recipe without discriminators: what is compared is there before they join."""
    return replace(scale.base, adversarial_from=None)
