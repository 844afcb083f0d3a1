"""Everything that decides a CAT-ASR's training, and the presets."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import tyro
from pydantic import ConfigDict

from cat_tts.asr import config as models
from cat_tts.asr.config import ASRConfig
from training.asr.batches import ASRBatchConfig
from training.common.settings import DepthDropoutConfig, HardwareConfig, MonitorConfig, OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class ASRLossWeights:
    """How much each term counts; the cross-entropy of the text has a weight of 1."""

    ctc: float = 1.0
    """Weight of the CTC head's loss, in a shape that has one."""


@dataclass(frozen=True, kw_only=True)
class ASRTraining:
    """One run. Samples are read at random depths, so that one model transcribes codes of any depth."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    codes: Path
    """Folder of code shards, see training.prepare."""
    run: Path = Path("runs/asr")
    """Folder of the run: state, metrics, and the model as RUN/model."""
    init: str | None = None
    """Folder or hub id to start from, in place of random weights: a CatASR or a Qwen3 checkpoint, whose shape
    the model then has."""
    tokenizer: str | None = None
    """Folder or hub id of the audio tokenizer of the codes: its vectors become the first code embeddings."""
    steps: int
    save_every: int = 500
    """Steps between two saves of RUN/state and RUN/model."""
    seed: int = 0
    validation: int = 64
    """Utterances kept out of the training, for the validation losses."""
    shape: Annotated[ASRConfig, tyro.conf.Suppress]
    """The model's config, but for codebooks and vocabulary: those are the codes' and the text tokenizer's."""
    text_pieces: int = 512
    """Size of the text vocabulary, 256 bytes among it."""
    phonemes: bool = False
    """The CTC head spells with phonemes of English, not with bytes: they are nearer to the sound."""
    causal: bool = False
    """Frames attend to none behind them, as in the paper."""
    batches: ASRBatchConfig = field(default_factory=ASRBatchConfig)
    dropout: DepthDropoutConfig = field(default_factory=lambda: DepthDropoutConfig(p=0.5))
    weights: ASRLossWeights = field(default_factory=ASRLossWeights)
    optimizer: OptimizerConfig
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    hardware: HardwareConfig = field(default_factory=lambda: HardwareConfig(precision="fp32"))


def paper() -> ASRTraining:
    """The paper's model (Appendix E), from Qwen3-1.7B: 1M rows a step on 64 GPUs, without what is ours."""
    return ASRTraining(
        codes=tyro.MISSING,
        init="Qwen/Qwen3-1.7B",
        steps=200_000,
        save_every=2000,
        shape=models.paper(),
        batches=ASRBatchConfig(rows=16_384, text_noise=0.0, length_warmup=0),
        optimizer=OptimizerConfig(learning_rate=5e-5, warmup=4000, decay=0.4, ema=0.995),
        hardware=HardwareConfig(checkpointing=True),
    )


def mini() -> ASRTraining:
    """The embedded model: minutes to hours on one CPU core."""
    return ASRTraining(
        codes=tyro.MISSING,
        steps=5000,
        shape=models.mini(),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup=100, decay=0.4, ema=0.995),
    )


def tiny() -> ASRTraining:
    """A few thousand weights and seconds, for tests."""
    return ASRTraining(
        codes=tyro.MISSING,
        steps=5000,
        shape=models.tiny(),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup=100, decay=0.4, ema=0.995),
    )


PRESETS = {"paper": paper, "mini": mini, "tiny": tiny}
