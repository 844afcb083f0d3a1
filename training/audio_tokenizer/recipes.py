"""Everything that decides a tokenizer's training, and the presets: whole recipes, for models of all sizes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro
from pydantic import ConfigDict

from tokenizer import TokenizerConfig, discriminators
from tokenizer import config as tokenizers
from tokenizer.discriminators import DiscriminatorConfig
from training.audio_tokenizer.batches import TokenizerBatchConfig
from training.audio_tokenizer.heads import semantic_config as semantic
from training.audio_tokenizer.heads.semantic_config import SemanticConfig
from training.audio_tokenizer.losses import WINDOWS, LossWeights
from training.common.settings import HardwareConfig, MonitorConfig, OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class TokenizerTrainingShape:
    """The modules that are trained together: what a preset fixes and a run cannot change.

    A run that starts from a model (`init`) has that model's shape in place of `model`.
    """

    model: TokenizerConfig
    discriminators: DiscriminatorConfig
    semantic: SemanticConfig


@dataclass(frozen=True, kw_only=True)
class TokenizerOptimizerConfig(OptimizerConfig):
    """AdamW with betas 0.8 and 0.99; defaults are the paper's where it gives them.

    Weight decay is of all but the discriminators, which have none; they have a warmup of their own, as long.
    With Muon a small semantic head follows the audio within minutes.
    """

    learning_rate: float = 1e-4
    discriminator_learning_rate: float = 1e-4
    weight_decay: float = 0.01
    decay: float = 0.1


@dataclass(frozen=True, kw_only=True)
class TokenizerMonitorConfig(MonitorConfig):
    """How a run can be followed; intervals are numbers of steps."""

    gradients_every: int = 100
    """Steps between two norms of the semantic and the mel gradient at the quantizer's output; each costs a
    backward pass."""
    samples_every: int = 1000
    """Steps between two times that audio is rebuilt at several depths, into RUN/samples."""
    validation: Path | None = None
    """Manifest of clips kept out of the training; mel and semantic loss are logged with each save."""
    validation_clips: int = 32


@dataclass(frozen=True, kw_only=True)
class TokenizerHardwareConfig(HardwareConfig):
    """How the same steps are computed."""

    compile: bool = False
    """Compile the Transformer layers."""


@dataclass(frozen=True, kw_only=True)
class TokenizerTraining:
    """One run: stage 1 trains without discriminators, stage 2, from `adversarial_from` on, with them."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    data: Path
    """Manifest of the clips, see training.data.manifest."""
    run: Path = Path("runs/codec")
    """Folder of the run: state, metrics, samples, and the model as RUN/model."""
    init: Path | None = None
    """Folder of a model to start from, in place of random weights. Its shape stays, also where it is not the
    preset's."""
    llm: str | None = None
    """Folder or hub id of the LLM that the semantic head starts from; None: random weights."""
    steps: int
    adversarial_from: int | None
    """The step at which the discriminators join; None: never."""
    trainable: Literal["full", "partial", "decoder", "encoder", "heads"] = "full"
    """partial keeps encoder and quantizer, and so what codes mean, from `adversarial_from` on (Figure 4);
    decoder keeps them from the first step on; encoder leaves the decoder out, which costs more than half;
    heads keeps the whole tokenizer, and measures what can be read from its codes."""
    filter_bank: bool = False
    """Keep the first two encoder stages fixed, which are a filter bank
    (training.audio_tokenizer.initialization.filter_bank). Without `init` they are calculated first, and so is
    the rest of the encoder (training.audio_tokenizer.initialization.pca_kmeans)."""
    reset_dead_codes: bool = False
    """Move unused codebook rows to vectors of the batch, while the learning rate is at its height; see
    training.audio_tokenizer.dead_code_reset."""
    save_every: int = 500
    """Steps between two saves of RUN/state and RUN/model."""
    seed: int = 0
    mel_windows: tuple[int, ...] = WINDOWS
    """Scales of the mel loss; the shortest cost most."""
    shape: Annotated[TokenizerTrainingShape, tyro.conf.Suppress]
    weights: LossWeights = field(default_factory=LossWeights)
    """Of the losses; 0 turns one off, and --weights.semantic 0 leaves the semantic head out."""
    optimizer: TokenizerOptimizerConfig = field(default_factory=TokenizerOptimizerConfig)
    batches: TokenizerBatchConfig = field(default_factory=TokenizerBatchConfig)
    monitor: TokenizerMonitorConfig = field(default_factory=TokenizerMonitorConfig)
    hardware: TokenizerHardwareConfig = field(default_factory=TokenizerHardwareConfig)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.save_every < 1:
            raise ValueError(f"steps={self.steps}, save_every={self.save_every}: give numbers from 1 on")
        if self.trainable == "partial" and self.adversarial_from is None:
            raise ValueError("trainable=partial freezes from adversarial_from on: give that step, or decoder")
        if self.trainable == "heads" and (
            self.adversarial_from is not None or not self.weights.semantic + self.weights.ctc
        ):
            raise ValueError(
                "trainable=heads makes no audio, and reads: give adversarial_from=None, "
                "and weights.semantic or weights.ctc"
            )
        if self.trainable == "encoder" and (self.adversarial_from is not None or not self.weights.spectral):
            raise ValueError(
                "trainable=encoder makes no audio: give adversarial_from=None, "
                "and weights.spectral to learn from"
            )


FIXED = ("seed", "shape", "batches", "mel_windows", "muon")
"""Settings that a run keeps to its end: a resume with other values would not continue it."""


def paper() -> TokenizerTraining:
    """The paper's 1.6B model (A.1): 520k steps at 1,536 items, then 500k with discriminators."""
    return _large(tokenizers.paper())


def scaled(hidden: int) -> TokenizerTraining:
    """The scaling family of Figure 5, trained as the paper's model."""
    return _large(tokenizers.scaled(hidden))


def mini() -> TokenizerTraining:
    """The embedded model: an hour or two on one CPU core."""
    return TokenizerTraining(
        data=tyro.MISSING,
        steps=6000,
        adversarial_from=4500,
        shape=TokenizerTrainingShape(
            model=tokenizers.mini(), discriminators=discriminators.mini(), semantic=semantic.mini()
        ),
        optimizer=TokenizerOptimizerConfig(
            learning_rate=2e-3, discriminator_learning_rate=5e-4, warmup=150, decay=0.25, ema=0.998
        ),
        reset_dead_codes=True,
        batches=TokenizerBatchConfig(batch_seconds=10.24, crop_seconds=0.64, utterances=0.25),
        hardware=TokenizerHardwareConfig(precision="fp32"),
    )


def small() -> TokenizerTraining:
    """An embedded model for some minutes of one GPU."""
    return TokenizerTraining(
        data=tyro.MISSING,
        steps=15_000,
        adversarial_from=10_000,
        shape=TokenizerTrainingShape(
            model=tokenizers.small(), discriminators=discriminators.small(), semantic=semantic.mini()
        ),
        optimizer=TokenizerOptimizerConfig(
            learning_rate=1e-3, discriminator_learning_rate=5e-4, warmup=300, decay=0.25, ema=0.999
        ),
        reset_dead_codes=True,
        batches=TokenizerBatchConfig(batch_seconds=64.0, crop_seconds=1.28),
        hardware=TokenizerHardwareConfig(precision="bf16", workers=8),
    )


def tiny() -> TokenizerTraining:
    """A few thousand weights and seconds, for tests."""
    return TokenizerTraining(
        data=tyro.MISSING,
        steps=6,
        adversarial_from=3,
        shape=TokenizerTrainingShape(
            model=tokenizers.tiny(), discriminators=discriminators.tiny(), semantic=semantic.tiny()
        ),
        optimizer=TokenizerOptimizerConfig(
            learning_rate=5e-3, discriminator_learning_rate=1e-3, warmup=2, decay=0.25, ema=0.5
        ),
        batches=TokenizerBatchConfig(batch_seconds=0.64, crop_seconds=0.16),
        monitor=TokenizerMonitorConfig(every=1, gradients_every=2),
        hardware=TokenizerHardwareConfig(precision="fp32"),
    )


PRESETS = {
    "paper": paper,
    "small": small,
    "mini": mini,
    "tiny": tiny,
    **{f"scaled-{hidden}": (lambda hidden=hidden: scaled(hidden)) for hidden in (256, 384, 512, 768)},
}


def _large(model: TokenizerConfig) -> TokenizerTraining:
    """About 2.5 h of audio a step, so that many processes share it; the paper's stage 1 has twice as much."""
    return TokenizerTraining(
        data=tyro.MISSING,
        steps=1_020_000,
        adversarial_from=520_000,
        save_every=5000,
        llm="Qwen/Qwen2.5-0.5B",
        shape=TokenizerTrainingShape(
            model=model, discriminators=discriminators.paper(), semantic=semantic.paper()
        ),
        batches=TokenizerBatchConfig(batch_seconds=9000.0, crop_seconds=11.68, utterances=0.5),
        hardware=TokenizerHardwareConfig(precision="bf16", checkpointing=True, workers=4),
    )
