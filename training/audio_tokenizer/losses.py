"""Losses of the tokenizer's training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from tokenizer.discriminators import DiscriminatorOutput

WINDOWS = (32, 64, 128, 256, 512, 1024, 2048)
"""The seven scales of paper eq. 4."""


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """The weight of each loss (paper A.1); the names are those of the losses, in the sum and in the log."""

    semantic: float = 20.0
    mel: float = 15.0
    commitment: float = 0.25
    codebook: float = 1.0
    adversarial: float = 1.0
    feature: float = 2.0
    spectral: float = 0.0
    """Not the paper's: weight of spectra that a head predicts from the codes, see
    training.audio_tokenizer.heads.spectral."""
    ctc: float = 0.0
    """Not the paper's: weight of a CTC loss of the text's bytes, see training.audio_tokenizer.heads.ctc;
    beside the semantic loss or without it."""
    pitch: float = 0.0
    """Not the paper's: weight of the error of the pitch in octaves, see training.audio_tokenizer.heads.pitch.
    Without a decoder a head predicts the pitch from the codes; else it is the pitch of the decoder's
    vocoder."""

    def __post_init__(self) -> None:
        for name, weight in asdict(self).items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"{name}={weight}: give 0, which turns the loss off, or a positive weight")


def weighted_sum(losses: Mapping[str, Float[Tensor, ""]], weights: LossWeights) -> Float[Tensor, ""]:
    """Return the weighted sum of the losses that are there (paper eq. 5), in float32.

    A weight of 0 leaves a term's parameters with gradients that are exactly 0 rather than absent, so that
    all processes of a distributed run reduce the same ones.

    Raises:
        ValueError: a loss has no weight.
    """
    known = asdict(weights)
    for name in losses:
        if name not in known:
            raise ValueError(f"no weight for the loss {name!r}; the losses are {', '.join(known)}")
    return torch.stack([known[name] * loss.float() for name, loss in losses.items()]).sum()


def mel_filters(sample_rate: int, window: int, mels: int) -> Float[Tensor, "f m"]:
    """Return Slaney's mel filters over all frequencies.

    Args:
        sample_rate: Samples a second.
        window: Samples of a window; it has `window // 2 + 1` bins.
        mels: Number of bands.
    """
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
        """Compute the log10 mel spectrogram of one scale.

        Args:
            audio: Samples.
            window: Samples of the scale's window.
        """
        hann = cast(Tensor, getattr(self, f"hann_{window}"))
        spectrum = torch.stft(audio, window, window // 4, window=hann, return_complex=True)
        mel = spectrum.abs().mT @ cast(Tensor, getattr(self, f"filters_{window}"))
        return mel.clamp(min=1e-5).log10()

    def forward(self, audio: Float[Tensor, "b s"], target: Float[Tensor, "b s"]) -> Float[Tensor, ""]:
        """Compute the loss of audio against its target."""
        with torch.autocast(audio.device.type, enabled=False):
            audio, target = audio.float(), target.float()
            loss = audio.new_zeros(())
            for window in self.windows:
                loss = loss + (self.log_mel(audio, window) - self.log_mel(target, window)).abs().mean()
            return loss


def discriminator_loss(
    real: Sequence[DiscriminatorOutput], fake: Sequence[DiscriminatorOutput]
) -> Float[Tensor, ""]:
    """Compute the discriminators' loss: 1 for real audio, 0 for rebuilt (LSGAN, reduced as in DAC).

    It is summed over sub-discriminators.

    Args:
        real: Outputs for real audio.
        fake: Outputs for rebuilt audio, which must have been detached.
    """
    pairs = zip(real, fake, strict=True)
    return _sum([_mean_square(1 - r.logits.float()) + _mean_square(f.logits.float()) for r, f in pairs])


def feature_loss(
    real: Sequence[DiscriminatorOutput], fake: Sequence[DiscriminatorOutput]
) -> Float[Tensor, ""]:
    """Compute the mean L1 distance to the feature maps of real audio, summed over all maps.

    As in DAC, whose weights the paper has, nothing is normalised and the logits are no feature.

    Args:
        real: Outputs for real audio.
        fake: Outputs for rebuilt audio.
    """
    distances = []
    for r, f in zip(real, fake, strict=True):
        for target, rebuilt in zip(r.features, f.features, strict=True):
            distances.append((rebuilt.float() - target.detach().float()).abs().mean())
    return _sum(distances)


def _mean_square(x: Tensor) -> Float[Tensor, ""]:
    return x.square().mean()


def _sum(terms: list[Tensor]) -> Float[Tensor, ""]:
    return torch.stack(terms).sum()
