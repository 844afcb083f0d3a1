"""The settings that all trainings share; a training adds its own fields in a subclass in its recipe."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW, or Muon beside it, with a warmup-stable-decay (WSD) schedule; gains of norms do not decay."""

    muon: bool = False
    """Change the matrices of the layers by Muon, not AdamW, at the same learning rate: a small model learns
    more from as many steps, each of which takes longer. Not with sharded weights."""
    learning_rate: float = 2e-4
    """Highest learning rate of the schedule."""
    weight_decay: float = 0.1
    warmup: int = 1000
    """Steps over which the learning rate rises."""
    decay: float = 0.25
    """Part of the run over which the learning rate falls to nothing."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones that RUN/model holds; 0 averages nothing."""


@dataclass(frozen=True, kw_only=True)
class MonitorConfig:
    """How a run can be followed; intervals are numbers of steps."""

    every: int = 25
    """Steps between two lines of RUN/metrics.jsonl."""
    tensorboard: bool = False
    """Also write RUN/tensorboard, with audio where there are samples. Needs the package tensorboard."""

    def __post_init__(self) -> None:
        intervals = {name: n for name, n in vars(self).items() if type(n) is int}
        if min(intervals.values()) < 1:
            named = ", ".join(f"monitor.{name}={n}" for name, n in intervals.items())
            raise ValueError(f"{named}: give numbers from 1 on; steps beyond the run's turn an entry off")


@dataclass(frozen=True, kw_only=True)
class HardwareConfig:
    """How the same steps are computed."""

    precision: Literal["bf16", "fp32"] = "bf16"
    """Precision of the layers' products; weights, quantizer and losses are float32 in either case."""
    checkpointing: bool = False
    """Compute the layers' activations twice, in place of keeping them: less memory, a third more time."""
    workers: int = 0
    """Processes that read ahead, for each process of the training."""


@dataclass(frozen=True, kw_only=True)
class DepthDropoutConfig:
    """Progressive Sequence Dropout: how many codebooks the samples of a step keep (paper eq. 7)."""

    p: float = 1.0
    """Probability that a sample keeps a part of its codebooks only."""
