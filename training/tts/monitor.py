"""How a TTS run can be followed: losses by codebook, throughput, the loss on what is kept out."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cat_tts import CatTTS
from cat_tts.model.tts import TTSLoss
from training.common.run import log_metrics
from training.tts.batches import Batch


class Monitor:
    """Sums since the last log line, over all processes: a checkpoint holds them, so that a resumed run logs
    the same lines."""

    def __init__(self, run: Path, num_codebooks: int) -> None:
        self.run, self.writer, self.num_codebooks = run, None, num_codebooks
        self.since = time.perf_counter()
        self._begin()

    def _begin(self) -> None:
        self.sums = torch.zeros(2 * self.num_codebooks + 2, dtype=torch.float64)
        self.norm, self.rows, self.steps = 0.0, 0, 0

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("sums", "norm", "rows", "steps")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def open_tensorboard(self, first: int) -> None:
        """Write RUN/tensorboard too; what a crashed run wrote from step `first` on is forgotten."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError("tensorboard is not installed: pip install tensorboard") from error
        self.writer = SummaryWriter(self.run / "tensorboard", purge_step=first + 1)

    def add(self, sums: Float[Tensor, " n"], norm: float, rows: int) -> None:
        """Take in one step: what `packed` gives for all its passes, and the rows that it read."""
        self.sums += sums
        self.norm, self.rows, self.steps = self.norm + norm, self.rows + rows, self.steps + 1

    def log(self, step: int, rate: float) -> float:
        """Write the means since the last `restart`; the loss of the codes."""
        now = time.perf_counter()
        metrics = {
            **{f"train/{name}": value for name, value in means(self.sums).items()},
            "train/lr": rate,
            "train/grad_norm": self.norm / self.steps,
            "train/rows_per_second": round(self.rows / (now - self.since), 1),
        }
        self.write(step, metrics)
        return metrics["train/loss/codes"]

    def restart(self) -> None:
        """Begin the next means, in every process."""
        self.since = time.perf_counter()
        self._begin()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One line of metrics.jsonl."""
        log_metrics(self.run, {"step": step, **metrics})
        if self.writer is not None:
            for name, value in metrics.items():
                self.writer.add_scalar(name, value, step)


def packed(loss: TTSLoss) -> Float[Tensor, " n"]:
    """The loss as one tensor, to be added up over passes and processes."""
    parts = [loss.code_sums, loss.code_counts, loss.decision_sum[None], loss.decision_count[None]]
    return torch.cat([part.detach().double() for part in parts])


def means(sums: Float[Tensor, " n"]) -> dict[str, float]:
    """Losses a code and a decision, overall and by codebook; codebooks that nothing kept are not there."""
    codes, counts = sums[:-2].chunk(2)
    layers = (codes / counts).tolist()
    return {
        "loss/codes": float(codes.sum() / counts.sum()),
        "loss/decision": float(sums[-2] / sums[-1]),
        **{f"layer/{k}": layer for k, layer in enumerate(layers) if not math.isnan(layer)},
    }


@torch.no_grad()
def validate(model: CatTTS, batches: Sequence[Batch], depth: int | None = None) -> dict[str, float]:
    """Losses over kept-out utterances at one depth, or the full one: what `means` gives."""
    sums: list[Tensor] = []
    for batch in batches:
        depths = torch.full_like(batch.depth, model.config.num_codebooks if depth is None else depth)
        sums.append(packed(model(batch.rows, None, batch.targets, depths, batch.positions)))
    return {f"validation/{name}": value for name, value in means(torch.stack(sums).sum(0)).items()}
