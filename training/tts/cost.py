"""The cost of a TTS training: memory by purpose, and time, measured on real steps."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cat_tts import CatTTS
from cat_tts.speakers.voice_vector import VoiceVectorEncoder
from training.common.optimizers import trained_groups
from training.tts.batches import TTSBatches
from training.tts.recipes import TTSTraining
from training.tts.setup import prepare_hardware
from training.tts.voice_vectors import voice_vectors


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Bytes and seconds of one process that shards nothing."""

    parameters: int
    trained: int
    """Number of parameters that are trained."""
    parts: dict[str, int]
    """Bytes by purpose. Activations are what the largest pass measured saves for its backward pass."""
    peak: int | None
    """Most bytes that were allocated on a GPU; None on a CPU."""
    rows_per_second: float
    """Text tokens and frames a second."""
    seconds_per_step: float

    @property
    def memory(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())


def measure(
    model: CatTTS,
    batches: TTSBatches,
    options: TTSTraining,
    steps: int,
    speaker_encoder: VoiceVectorEncoder | None = None,
) -> Cost:
    """Train `model`, in place, for some steps, after one that is not counted.

    Args:
        model: The model, on its device.
        batches: The passes of the steps.
        options: Optimizer and hardware.
        steps: Number of measured steps.
        speaker_encoder: What computes the voice vectors that the model reads, if it does.
    """
    device = model.text_embedding.weight.device
    groups = trained_groups(model, options.optimizer.weight_decay)
    trained = [parameter for group in groups for parameter in group["params"]]
    whole = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    part = sum(parameter.numel() * parameter.element_size() for parameter in trained)
    prepare_hardware(model, options.hardware, device)
    optimizer = torch.optim.AdamW(groups, options.optimizer.learning_rate, fused=True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    saved, seconds, rows = 0, [], 0
    for step in range(steps + 1):
        start = time.perf_counter()
        for batch in batches[step]:
            batch = batch.to(device)
            speaker = voice_vectors(speaker_encoder, batch.clips, batch.depth)
            with count_saved(model) as found:
                loss = model(
                    batch.rows, None, batch.targets, batch.depth, batch.positions, batch.deep, speaker
                )
            saved = max(saved, sum(found.values()))
            (loss.codes + loss.decision).backward()
            rows += batch.length if step else 0
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return Cost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained=sum(parameter.numel() for parameter in trained),
        parts={
            "weights": whole,
            "gradients": part,
            "optimizer": 2 * part,
            "average": whole,
            "activations": saved,
        },
        peak=torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
        rows_per_second=rows / sum(seconds[1:]),
        seconds_per_step=statistics.median(seconds[1:]),
    )


@contextmanager
def count_saved(model: nn.Module) -> Iterator[dict[int, int]]:
    """Collect the bytes of each storage that autograd saves of what is computed inside, without weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    alive: list[Tensor] = []
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and storage.data_ptr() not in found:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that no other gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found
    alive.clear()
