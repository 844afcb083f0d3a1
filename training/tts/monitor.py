"""How a TTS run can be followed: losses by codebook, throughput, validation losses."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cat_tts import CatTTS
from cat_tts.model.tts import TTSLoss
from cat_tts.speakers.voice_vector import VoiceVectorEncoder
from training.common.monitor import RunMonitor
from training.tts.batches import TTSBatch
from training.tts.voice_vectors import voice_vectors


class TTSMonitor(RunMonitor):
    """Sums since the last log line, over all processes.

    A checkpoint holds them, so that a resumed run logs the same lines.
    """

    def __init__(self, run: Path, num_codebooks: int) -> None:
        super().__init__(run)
        self.num_codebooks = num_codebooks
        self.since = time.perf_counter()
        self._begin()

    def _begin(self) -> None:
        self.sums = torch.zeros(2 * self.num_codebooks + 2, dtype=torch.float64)
        self.norm, self.rows, self.steps = 0.0, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, for a checkpoint."""
        return {name: getattr(self, name) for name in ("sums", "norm", "rows", "steps")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the sums of a checkpoint."""
        for name, value in state.items():
            setattr(self, name, value)

    def add(self, sums: Float[Tensor, " n"], norm: float, rows: int) -> None:
        """Add one step.

        Args:
            sums: What `packed` gives for all passes and processes of the step.
            norm: Norm of the gradient.
            rows: Rows of the step, without padding.
        """
        self.sums += sums
        self.norm, self.rows, self.steps = self.norm + norm, self.rows + rows, self.steps + 1

    def log(self, step: int, rate: float) -> float:
        """Write the means since the last `reset`; return the loss of the codes."""
        now = time.perf_counter()
        metrics = {
            **{f"train/{name}": value for name, value in means(self.sums).items()},
            "train/lr": rate,
            "train/grad_norm": self.norm / self.steps,
            "train/rows_per_second": round(self.rows / (now - self.since), 1),
        }
        self.write(step, metrics)
        return metrics["train/loss/codes"]

    def reset(self) -> None:
        """Begin the next means, in every process."""
        self.since = time.perf_counter()
        self._begin()


def packed(loss: TTSLoss) -> Float[Tensor, " n"]:
    """Return the loss as one float64 tensor, to be added up over passes and processes."""
    parts = [loss.code_sums, loss.code_counts, loss.decision_sum[None], loss.decision_count[None]]
    return torch.cat([part.detach().double() for part in parts])


def means(sums: Float[Tensor, " n"]) -> dict[str, float]:
    """Return losses per code and per decision, in nats, from sums of `packed`.

    Codebooks that no sample kept are left out.
    """
    codes, counts = sums[:-2].chunk(2)
    layers = (codes / counts).tolist()
    return {
        "loss/codes": float(codes.sum() / counts.sum()),
        "loss/decision": float(sums[-2] / sums[-1]),
        **{f"layer/{k}": layer for k, layer in enumerate(layers) if not math.isnan(layer)},
    }


@torch.no_grad()
def validate(
    model: CatTTS,
    batches: Sequence[TTSBatch],
    depth: int | None = None,
    speaker_encoder: VoiceVectorEncoder | None = None,
) -> dict[str, float]:
    """Compute the losses over kept-out utterances.

    Args:
        model: The model, on the device of the batches.
        batches: The utterances.
        depth: Codebooks of each sample; None means all.
        speaker_encoder: What computes the voice vectors that the model reads, if it does.

    Returns:
        What `means` gives, under `validation/`.
    """
    sums: list[Tensor] = []
    for batch in batches:
        depths = torch.full_like(batch.depth, model.config.num_codebooks if depth is None else depth)
        speaker = voice_vectors(speaker_encoder, batch.clips, depths)
        loss = model(batch.rows, None, batch.targets, depths, batch.positions, speaker=speaker)
        sums.append(packed(loss))
    return {f"validation/{name}": value for name, value in means(torch.stack(sums).sum(0)).items()}
