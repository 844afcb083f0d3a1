"""Everything that decides a TTS model's training, and the presets."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro
from pydantic import ConfigDict

from cat_tts import TTSConfig
from cat_tts import config as models
from training.tts.batches import BatchConfig, DropoutConfig
from training.tts.lora import LoraOptions


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with betas 0.9 and 0.95; gains of norms do not decay."""

    muon: bool = False
    """Change the matrices of the layers by Muon, not AdamW, at the same learning rate: a small model learns
    more from as many steps, each of which takes longer. On in `mini` and `small`; not with sharded
    weights."""

    learning_rate: float = 2e-4
    tables: float = 1.0
    """Learning rate of tables and heads, as a part of the others'. AdamW's steps are as long for the little
    that a few frames tell of a row as for much; most of such a row becomes noise."""
    weight_decay: float = 0.1
    warmup: int = 1000
    """Steps."""
    decay: float = 0.25
    """Part of the run over which the learning rate falls to nothing."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones that RUN/model holds; 0 averages nothing."""


@dataclass(frozen=True, kw_only=True)
class MonitorConfig:
    """How a run can be followed."""

    every: int = 25
    """Steps between two lines of RUN/metrics.jsonl."""
    samples_every: int = 1000
    """Steps between two times that texts which are kept out are spoken, at two depths; needs `tokenizer`."""
    tensorboard: bool = False
    """Also write RUN/tensorboard, with what is spoken. Needs the package tensorboard."""

    def __post_init__(self) -> None:
        if min(self.every, self.samples_every) < 1:
            raise ValueError(
                f"monitor.every={self.every}, monitor.samples_every={self.samples_every}: "
                "give numbers of steps from 1 on"
            )


@dataclass(frozen=True, kw_only=True)
class HardwareConfig:
    """How the same steps are computed."""

    precision: Literal["bf16", "fp32"] = "bf16"
    """Of the products; weights and losses are float32 in either case."""
    checkpointing: bool = False
    """Compute the layers' activations twice, in place of keeping them: less memory, a third more time."""
    workers: int = 0
    """Processes that read codes, for each process of the training."""


@dataclass(frozen=True, kw_only=True)
class TTSTraining:
    """One run: Progressive Sequence Dropout draws the depth of each sample (paper 3.3)."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    codes: Path
    """Folder of shards, see training.prepare."""
    run: Path = Path("runs/tts")
    """Folder of the run: state, metrics, and the model as RUN/model."""
    init: str | None = None
    """Folder or hub id to start from, in place of random weights: a CAT-TTS model, which is taken whole, or a
    Qwen3 checkpoint for the Temporal Transformer."""
    tokenizer: str | None = None
    """Folder or hub id of the tokenizer of the codes: for samples that can be heard, in RUN/samples, and for
    random weights that know from the start which codes sound alike, see cat_tts.model.code_embeddings."""
    steps: int
    save_every: int = 500
    seed: int = 0
    validation: int = 64
    """Utterances kept out of the training; their loss is logged with each save."""
    shape: Annotated[TTSConfig, tyro.conf.Suppress]
    """But for codebooks and vocabulary, which are those of the codes and of the text tokenizer."""
    text: Literal["pieces", "phonemes"] = "pieces"
    """What a model reads that begins here: SentencePiece's of any language, or English phonemes, with which a
    small one learns to speak sooner. With `init` a model reads on what it did, unless there is `new_text`."""
    new_text: bool = False
    """With `init`, of a small model trained here: let it read `text` of this run's own, as if it could not
    read yet."""
    meant_from: int | None = None
    """With `init` and `tokenizer`: tables learn exactly what codes mean, from this codebook (from 1) on they
    and their heads forget all else, and the tables then stay so; see
    `cat_tts.model.code_embeddings.begin_anew`. What is left for a deep codebook is a difference, which noise
    in the tables before it hides; and few frames hold a given deep code, of whose row Adam makes noise, its
    steps being as long for small gradients."""
    batches: BatchConfig = field(default_factory=BatchConfig)
    dropout: DropoutConfig = field(default_factory=DropoutConfig)
    lora: LoraOptions = field(default_factory=LoraOptions)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.save_every < 1:
            raise ValueError(f"steps={self.steps}, save_every={self.save_every}: give numbers from 1 on")
        if self.lora.rank and self.init is None:
            raise ValueError(f"lora.rank={self.lora.rank} adapts a trained model: name it with --init")
        if self.meant_from is not None and (self.init is None or self.tokenizer is None):
            raise ValueError(
                f"meant_from={self.meant_from} gives a trained model what codes mean to their tokenizer: "
                "name both, with --init and --tokenizer"
            )
        if self.new_text and self.init is None:
            raise ValueError("new_text teaches a trained model another text: name it with --init")


FIXED = (
    "seed",
    "validation",
    "shape",
    "text",
    "new_text",
    "meant_from",
    "init",
    "lora",
    "batches",
    "tokenizer_sha256",
    "mixture",
    "muon",
    "tables",
)
"""What a run keeps to its end: a resume with other values would not continue it."""


def paper() -> TTSTraining:
    """The paper's model: 200k steps of 1.35M rows, in 64 passes for up to 64 GPUs."""
    return TTSTraining(
        codes=tyro.MISSING,
        steps=200_000,
        save_every=2000,
        shape=models.paper(),
        batches=BatchConfig(rows=21_094, passes=64, max_frames=750),
        hardware=HardwareConfig(checkpointing=True, workers=4),
    )


def small() -> TTSTraining:
    """An embedded model for some minutes of one GPU."""
    return TTSTraining(
        codes=tyro.MISSING,
        steps=10_000,
        shape=models.small(),
        text="phonemes",
        batches=BatchConfig(rows=8192),
        optimizer=OptimizerConfig(muon=True, learning_rate=1e-3, warmup=300),
        hardware=HardwareConfig(workers=8),
    )


def mini() -> TTSTraining:
    """The embedded model: hours on one CPU core."""
    return TTSTraining(
        codes=tyro.MISSING,
        steps=5000,
        shape=models.mini(),
        text="phonemes",
        optimizer=OptimizerConfig(muon=True, learning_rate=1e-3, warmup=200, ema=0.998),
        hardware=HardwareConfig(precision="fp32"),
    )


def tiny() -> TTSTraining:
    """A few thousand weights and seconds, for tests."""
    return TTSTraining(
        codes=tyro.MISSING,
        steps=6,
        shape=models.tiny(),
        batches=BatchConfig(rows=200),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup=2, ema=0.5),
        validation=8,
        monitor=MonitorConfig(every=1),
        hardware=HardwareConfig(precision="fp32"),
    )


PRESETS = {"paper": paper, "small": small, "mini": mini, "tiny": tiny}
