"""Everything that decides a TTS model's training, and the presets."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro
from pydantic import ConfigDict

from cat_tts import TTSConfig
from cat_tts import config as models
from training.common.settings import HardwareConfig, MonitorConfig, OptimizerConfig
from training.tts.batches import DropoutConfig, TTSBatchConfig
from training.tts.lora import LoraOptions


@dataclass(frozen=True, kw_only=True)
class TTSOptimizerConfig(OptimizerConfig):
    """AdamW with betas 0.9 and 0.95. Muon is on in `mini` and `small`."""

    embedding_learning_rate_scale: float = 1.0
    """Learning rate of embeddings and output heads, as a part of the others'. AdamW's steps are as long for
    a row that few frames have a gradient for as for one of many; most of such a row becomes noise."""


@dataclass(frozen=True, kw_only=True)
class TTSMonitorConfig(MonitorConfig):
    """How a run can be followed; intervals are numbers of steps."""

    samples_every: int = 1000
    """Steps between two times that texts which are kept out are spoken, at two depths; needs `tokenizer`."""


@dataclass(frozen=True, kw_only=True)
class TTSTraining:
    """One run: Progressive Sequence Dropout draws the depth of each sample (paper 3.3)."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    codes: Path
    """Folder of code shards, see training.prepare."""
    run: Path = Path("runs/tts")
    """Folder of the run: state, metrics, and the model as RUN/model."""
    init: str | None = None
    """Folder or hub id to start from, in place of random weights: a CAT-TTS model, which is taken whole, or a
    Qwen3 checkpoint for the Temporal Transformer."""
    tokenizer: str | None = None
    """Folder or hub id of the audio tokenizer of the codes: for audio samples in RUN/samples, and for random
    weights that begin with codes that sound alike close together, see cat_tts.model.code_embeddings."""
    speaker_encoder: str | None = None
    """Folder or hub id of a voice-vector encoder of these codes (`training.speakers.voice_vector`): the model
    then reads the voice vector of the prompt too. With `init`, a model that read none learns to."""
    steps: int
    save_every: int = 500
    """Steps between two saves of RUN/state and RUN/model."""
    seed: int = 0
    validation: int = 64
    """Utterances kept out of the training; their loss is logged with each save."""
    shape: Annotated[TTSConfig, tyro.conf.Suppress]
    """The model's config, but for codebooks and vocabulary: those are the codes' and the text tokenizer's."""
    text: Literal["pieces", "phonemes"] = "pieces"
    """What a model that begins here reads: SentencePiece's pieces of any language, or English phonemes, with
    which a small model learns to speak sooner. With `init` a model continues to read what it did, unless
    there is `new_text`."""
    new_text: bool = False
    """With `init`, of a small model trained here: give it a new text tokenizer, made of this run's texts, and
    untrained text embeddings for it."""
    reinit_codebooks_from: int | None = None
    """With `tokenizer`, and with or without `init`: add the tokenizer's vectors to the code embeddings; from
    this codebook (from 1) on they and their output heads forget all else, and no embedding is trained. See
    `cat_tts.model.code_embeddings.reinit_codebooks`. What a deep codebook adds is a small difference, which
    noise in the embeddings before it hides; and few frames hold a given deep code, whose row Adam turns into
    noise, its steps being as long for small gradients."""
    batches: TTSBatchConfig = field(default_factory=TTSBatchConfig)
    dropout: DropoutConfig = field(default_factory=DropoutConfig)
    lora: LoraOptions = field(default_factory=LoraOptions)
    optimizer: TTSOptimizerConfig = field(default_factory=TTSOptimizerConfig)
    monitor: TTSMonitorConfig = field(default_factory=TTSMonitorConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.save_every < 1:
            raise ValueError(f"steps={self.steps}, save_every={self.save_every}: give numbers from 1 on")
        if self.lora.rank and self.init is None:
            raise ValueError(f"lora.rank={self.lora.rank} adapts a trained model: name it with --init")
        if self.reinit_codebooks_from is not None and self.tokenizer is None:
            raise ValueError(
                f"reinit_codebooks_from={self.reinit_codebooks_from} gives a model the vectors of the codes' "
                "tokenizer: name it, with --tokenizer"
            )
        if self.new_text and self.init is None:
            raise ValueError("new_text teaches a trained model another text: name it with --init")


FIXED = (
    "seed",
    "validation",
    "shape",
    "text",
    "new_text",
    "reinit_codebooks_from",
    "init",
    "lora",
    "batches",
    "tokenizer_sha256",
    "speaker_encoder_sha256",
    "mixture",
    "muon",
    "embedding_learning_rate_scale",
)
"""Settings that a run keeps to its end: a resume with other values would not continue it."""


def paper() -> TTSTraining:
    """The paper's model: 200k steps of 1.35M rows, in 64 passes for up to 64 GPUs."""
    return TTSTraining(
        codes=tyro.MISSING,
        steps=200_000,
        save_every=2000,
        shape=models.paper(),
        batches=TTSBatchConfig(rows=21_094, passes=64, max_frames=750),
        hardware=HardwareConfig(checkpointing=True, workers=4),
    )


def small() -> TTSTraining:
    """An embedded model for some minutes of one GPU."""
    return TTSTraining(
        codes=tyro.MISSING,
        steps=10_000,
        shape=models.small(),
        text="phonemes",
        batches=TTSBatchConfig(rows=8192),
        optimizer=TTSOptimizerConfig(muon=True, learning_rate=1e-3, warmup=300),
        hardware=HardwareConfig(workers=8),
    )


def mini() -> TTSTraining:
    """The embedded model: hours on one CPU core."""
    return TTSTraining(
        codes=tyro.MISSING,
        steps=5000,
        shape=models.mini(),
        text="phonemes",
        optimizer=TTSOptimizerConfig(muon=True, learning_rate=1e-3, warmup=200, ema=0.998),
        hardware=HardwareConfig(precision="fp32"),
    )


def tiny() -> TTSTraining:
    """A few thousand weights and seconds, for tests."""
    return TTSTraining(
        codes=tyro.MISSING,
        steps=6,
        shape=models.tiny(),
        batches=TTSBatchConfig(rows=200),
        optimizer=TTSOptimizerConfig(learning_rate=1e-2, warmup=2, ema=0.5),
        validation=8,
        monitor=TTSMonitorConfig(every=1),
        hardware=HardwareConfig(precision="fp32"),
    )


PRESETS = {"paper": paper, "small": small, "mini": mini, "tiny": tiny}
