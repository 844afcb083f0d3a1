"""How a tokenizer's run can be followed: metrics, codebook usage, unreadable files, audio samples."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor

from tokenizer import AudioTokenizer, TokenizerConfig, load_audio, save_audio
from training.audio_tokenizer.batches import TokenizerBatch
from training.audio_tokenizer.heads.pitch import pitch_loss
from training.audio_tokenizer.joint_model import JointModel
from training.audio_tokenizer.losses import LossWeights, MultiScaleMelLoss
from training.common.monitor import RunMonitor
from training.data.manifest import TASKS, Clip

MIN_DRAWS, MAX_FAILURE_SHARE = 200, 0.05
"""A run ends when more than this part of its draws fail; it counts as if it had drawn `MIN_DRAWS` at
least."""
MAX_SAMPLE_SECONDS, MAX_VALIDATION_SECONDS = 6.0, 15.0
"""Length of samples; longest clip of the validation."""


class TokenizerMonitor(RunMonitor):
    """Means since the last log line. A checkpoint holds them, so that a resumed run logs the same lines."""

    def __init__(self, run: Path, config: TokenizerConfig) -> None:
        super().__init__(run)
        self.config = config
        self.used = torch.zeros(config.num_codebooks, config.codebook_size, dtype=torch.int64)
        self.sums: dict[str, tuple[float, int]] = {}
        self.drawn = self.skipped = 0
        self.seconds, self.since = 0.0, time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, for a checkpoint."""
        return {name: getattr(self, name) for name in ("used", "sums", "drawn", "skipped")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the sums of a checkpoint."""
        for name, value in state.items():
            setattr(self, name, value)

    def add(self, values: Mapping[str, float], batch: TokenizerBatch, codes: Int[Tensor, "b t k"]) -> None:
        """Add one step of this process.

        Args:
            values: Numbers to be logged, by name.
            batch: The step's audio, and what could not be read.
            codes: What the audio became.

        Raises:
            ValueError: too many of the files that were drawn cannot be read.
        """
        for name, value in values.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value, count + 1)
        layers, size = self.config.num_codebooks, self.config.codebook_size
        valid = torch.arange(codes.shape[1], device=codes.device) < batch.frames[:, None]
        indices = codes[valid] + size * torch.arange(layers, device=codes.device)
        self.used += torch.bincount(indices.flatten(), minlength=layers * size).view(layers, size).cpu()
        self.seconds += batch.audio.numel() / self.config.sample_rate
        self.drawn += len(batch.audio) + len(batch.failures)
        self.skipped += len(batch.failures)
        if self.skipped > MAX_FAILURE_SHARE * max(self.drawn, MIN_DRAWS):
            raise ValueError(
                f"{self.skipped} of {self.drawn} files that were drawn cannot be read; "
                "repair or remove them: " + "; ".join(batch.failures[-3:])
            )

    def log(self, accelerator: Accelerator, step: int) -> None:
        """Write the means over the steps since the last call and over all processes."""
        names = sorted(self.sums)
        means = torch.tensor([self.sums[name][0] / self.sums[name][1] for name in names], dtype=torch.float64)
        sums = torch.tensor([self.seconds, float(self.skipped)], dtype=torch.float64)
        means, sums, used = (
            cast(Tensor, accelerator.reduce(part.to(accelerator.device), how)).cpu()
            for part, how in ((means, "mean"), (sums, "sum"), (self.used, "sum"))
        )
        now = time.perf_counter()
        metrics = dict(zip(names, means.tolist(), strict=True))
        metrics["train/skipped"] = int(sums[1])
        metrics["train/audio_seconds_per_second"] = round(float(sums[0]) / (now - self.since), 3)
        for k, (perplexity, usage) in enumerate(codebook_usage(used)):
            metrics |= {f"train/perplexity/{k}": perplexity, f"train/usage/{k}": usage}
        if accelerator.is_main_process:
            self.write(step, metrics)
        self.sums, self.seconds, self.since = {}, 0.0, now
        self.used.zero_()

    @torch.no_grad()
    def sample(
        self, step: int, tokenizer: AudioTokenizer, clips: Sequence[Clip], mel: MultiScaleMelLoss
    ) -> None:
        """Rebuild clips at several depths into RUN/samples, and beside their originals in TensorBoard."""
        rate, deepest = self.config.sample_rate, self.config.num_codebooks
        device = next(tokenizer.parameters()).device
        for i, clip in enumerate(clips):
            audio = load_audio(clip.audio, rate)[None, : round(MAX_SAMPLE_SECONDS * rate)].to(device)
            self._save_sample(0, f"{i}_original", audio, audio, mel)
            codes = tokenizer.encode(audio)
            for depth in sorted({1, max(1, deepest // 3), deepest}):
                rebuilt = tokenizer.decode(codes[..., :depth])[:, : audio.shape[1]]
                self._save_sample(step, f"{i}_depth_{depth}", rebuilt, audio, mel)

    def _save_sample(
        self, step: int, name: str, audio: Tensor, original: Tensor, mel: MultiScaleMelLoss
    ) -> None:
        folder = self.run / "samples" / f"step_{step:07d}"
        folder.mkdir(parents=True, exist_ok=True)
        save_audio(folder / f"{name}.wav", audio[0], self.config.sample_rate)
        if self.writer is not None:
            self.writer.add_audio(name, audio.cpu(), step, self.config.sample_rate)
            window = max(mel.windows)
            pair = torch.cat([mel.log_mel(signal, window)[0].T.flip(0) for signal in (original, audio)])
            self.writer.add_image(name, ((pair + 5) / 7).clamp(0, 1)[None].cpu(), step)


@torch.no_grad()
def validate(joint: JointModel, mel: MultiScaleMelLoss, clips: Sequence[Clip]) -> dict[str, float]:
    """Compute losses at full depth over whole clips kept out of the training.

    Losses of texts are means over tokens. `..._mismatched` are computed with the text of the clip before: a
    head that has learnt the language alone, and ignores the audio, finds both equally likely.

    Returns:
        Losses by name, under `validation/loss/`.
    """
    tokenizer, encode, device = joint.tokenizer, joint.encode_text, next(joint.parameters()).device
    config = tokenizer.config
    texts = [encode(clip.text) if encode is not None and clip.text else [] for clip in clips]
    sums: dict[str, tuple[float, int]] = {}
    for i, clip in enumerate(clips):
        audio = load_audio(clip.audio, config.sample_rate)[None].to(device)
        audio = F.pad(audio, (0, -audio.shape[1] % config.frame_size))
        frames = torch.tensor([audio.shape[1] // config.frame_size], device=device)
        depth = torch.tensor([config.num_codebooks], device=device)
        task = torch.tensor([TASKS.index(clip.task)], device=device)
        latents = tokenizer.quantizer(tokenizer.latents(audio), depth).latents
        if joint.spectral is not None:
            _count(sums, "spectral", joint.spectral(latents, audio), 1)
        if joint.pitch is not None:
            _count(sums, "pitch", pitch_loss(joint.pitch(latents), joint.track_pitch(audio)), 1)
        if not joint.without_decoder:
            rebuilt, octaves = joint.synthesize(latents, audio)
            _count(sums, "mel", mel(rebuilt, audio), 1)
            if octaves is not None:
                _count(sums, "pitch", octaves, 1)
        for text, suffix in ((texts[i], ""), (texts[i - 1], "_mismatched")):
            for name, loss in joint.text_losses(latents, frames, task, [text]).items() if text else ():
                _count(sums, f"{name}{suffix}", loss.total, loss.tokens)
    return {f"validation/loss/{name}": total / max(1, count) for name, (total, count) in sums.items()}


def _count(sums: dict[str, tuple[float, int]], name: str, loss: Tensor, count: int | Tensor) -> None:
    total, counted = sums.get(name, (0.0, 0))
    sums[name] = (total + loss.item(), counted + int(count))


def codebook_usage(used: Int[Tensor, "k v"]) -> list[tuple[float, float]]:
    """Compute the perplexity of each codebook's codes, and the part of its rows that occur at all.

    Args:
        used: How often each row of each codebook occurred.
    """
    result = []
    for counts in used.double():
        shares = counts[counts > 0] / counts.sum()
        perplexity = float((-(shares * shares.log()).sum()).exp()) if len(shares) else 0.0
        result.append((perplexity, len(shares) / len(counts)))
    return result


def gradient_norms(
    losses: Mapping[str, Float[Tensor, ""]], weights: LossWeights, latents: Float[Tensor, "b t d"] | None
) -> dict[str, float]:
    """Compute the gradient norms of the weighted semantic and mel losses at the quantizer's output.

    Args:
        losses: Losses of this process's items, by name.
        weights: Their weights.
        latents: The quantizer's output, `JointModel.latents`.
    """
    assert latents is not None, "no forward pass yet"
    norms = {}
    for name in ("semantic", "mel"):
        if name in losses:
            weighted = getattr(weights, name) * losses[name]
            (gradient,) = torch.autograd.grad(weighted, latents, retain_graph=True)
            norms[f"train/latent_gradient/{name}"] = float(gradient.norm())
    return norms
