"""Losses of the tokenizer's training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from tokenizer.discriminators import Judgement

WINDOWS = (32, 64, 128, 256, 512, 1024, 2048)
"""The seven scales of paper eq. 4."""


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """How much each term counts (paper A.1). The names are those of the terms, in the sum and in the log."""

    semantic: float = 20.0
    mel: float = 15.0
    commitment: float = 0.25
    codebook: float = 1.0
    adversarial: float = 1.0
    feature: float = 2.0
    spectral: float = 0.0
    """Not the paper's: of spectra that a head reads from the codes, see
    training.audio_tokenizer.heads.spectral."""
    ctc: float = 0.0
    """Not the paper's: of the text's bytes, which a head reads in the order of time, see
    training.audio_tokenizer.heads.ctc; beside the semantic loss or without it."""
    pitch: float = 0.0
    """Not the paper's: octaves that the pitch is wrong by, see training.audio_tokenizer.heads.pitch; read
    from the codes by a head while there is no decoder, and then the pitch that a decoder with a vocoder
    draws."""

    def __post_init__(self) -> None:
        for name, weight in asdict(self).items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"{name}={weight}: give 0, which turns the loss off, or a positive weight")


def weighted_sum(losses: Mapping[str, Float[Tensor, ""]], weights: LossWeights) -> Float[Tensor, ""]:
    """Sum of the terms that are there (paper eq. 5), in float32.

    A weight of 0 leaves a term's parameters with gradients that are exactly 0 rather than absent, so that
    all processes of a distributed run reduce the same ones.
    """
    known = asdict(weights)
    for name in losses:
        if name not in known:
            raise ValueError(f"no weight for the loss {name!r}; the losses are {', '.join(known)}")
    return torch.stack([known[name] * loss.float() for name, loss in losses.items()]).sum()


def mel_filters(sample_rate: int, window: int, mels: int) -> Float[Tensor, "f m"]:
    """Slaney's filters from the bins of a window to `mels` bands, over all frequencies."""
    filters = mel_filter_bank(
        num_frequency_bins=window // 2 + 1,
        num_mel_filters=mels,
        min_frequency=0.0,
        max_frequency=sample_rate / 2,
        sampling_rate=sample_rate,
        norm="slaney",
        mel_scale="slaney",
    )
    return torch.from_numpy(filters).float()


class MultiScaleMelLoss(nn.Module):
    """L1 distance of log10 mel spectrograms, summed over scales (paper eq. 4, with DAC's ladder of mels).

    Scale w: Hann window w, hop w/4, w * 5/32 Slaney mels of the magnitude, floor 1e-5. The paper's fixed
    number of mels would leave filters of the short windows empty at 24 kHz. Always float32.
    """

    def __init__(self, sample_rate: int, windows: tuple[int, ...] = WINDOWS) -> None:
        super().__init__()
        self.windows = windows
        for window in windows:
            filters = mel_filters(sample_rate, window, window * 5 // 32)
            self.register_buffer(f"filters_{window}", filters, persistent=False)
            self.register_buffer(f"hann_{window}", torch.hann_window(window), persistent=False)

    def log_mel(self, audio: Float[Tensor, "b s"], window: int) -> Float[Tensor, "b t m"]:
        """One scale's spectrogram."""
        hann = cast(Tensor, getattr(self, f"hann_{window}"))
        spectrum = torch.stft(audio, window, window // 4, window=hann, return_complex=True)
        mel = spectrum.abs().mT @ cast(Tensor, getattr(self, f"filters_{window}"))
        return mel.clamp(min=1e-5).log10()

    def forward(self, audio: Float[Tensor, "b s"], target: Float[Tensor, "b s"]) -> Float[Tensor, ""]:
        with torch.autocast(audio.device.type, enabled=False):
            audio, target = audio.float(), target.float()
            loss = audio.new_zeros(())
            for window in self.windows:
                loss = loss + (self.log_mel(audio, window) - self.log_mel(target, window)).abs().mean()
            return loss


def discriminator_loss(real: Sequence[Judgement], fake: Sequence[Judgement]) -> Float[Tensor, ""]:
    """What discriminators minimise: 1 for real audio, 0 for rebuilt (LSGAN, reduced as in DAC).

    Summed over sub-discriminators. Rebuilt audio must have been detached before it was judged.
    """
    pairs = zip(real, fake, strict=True)
    return _sum([_mean_square(1 - r.logits.float()) + _mean_square(f.logits.float()) for r, f in pairs])


def feature_loss(real: Sequence[Judgement], fake: Sequence[Judgement]) -> Float[Tensor, ""]:
    """Mean L1 distance to the feature maps of real audio, summed over maps and sub-discriminators.

    As in DAC, whose weights the paper has, nothing is normalised and the logits are no feature.
    """
    distances = []
    for r, f in zip(real, fake, strict=True):
        for wanted, given in zip(r.features, f.features, strict=True):
            distances.append((given.float() - wanted.detach().float()).abs().mean())
    return _sum(distances)


def _mean_square(x: Tensor) -> Float[Tensor, ""]:
    return x.square().mean()


def _sum(terms: list[Tensor]) -> Float[Tensor, ""]:
    return torch.stack(terms).sum()
