"""What codes should tell before there is a decoder: the spectra of their frames.

A decoder that must first learn to make sound is a poor teacher: most of its error is excitation that it
cannot place, and the encoder learns little from that. A small head which reads log-mel spectra out of the
quantizer's output asks for the envelope at once.
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from tokenizer import TokenizerConfig

STEPS = 8
"""Spectra of a frame: 100 a second at 12.5 frames."""
FLOOR = 1e-4
"""Of the mel magnitudes, below which nothing is heard at the loudness of speech."""
TYPICAL = -2.0
"""A typical logarithm, where the head begins."""


@dataclass(frozen=True)
class Scale:
    """One resolution."""

    window: int
    mels: int


SCALES = (Scale(512, 40), Scale(1024, 80))
"""One that is quick and smooth, and one that tells the harmonics of a voice apart."""


class SpectralHead(nn.Module):
    """An MLP from the latents of a frame to its spectra; it lasts as long as a training."""

    def __init__(self, config: TokenizerConfig, hidden: int = 768) -> None:
        super().__init__()
        self.hop = config.frame_size // STEPS
        values = STEPS * sum(scale.mels for scale in SCALES)
        out = nn.Linear(hidden, values)
        nn.init.constant_(out.bias, TYPICAL)
        self.mlp = nn.Sequential(nn.Linear(config.code_dim, hidden), nn.GELU(), out)
        for scale in SCALES:
            filters = mel_filter_bank(
                num_frequency_bins=scale.window // 2 + 1,
                num_mel_filters=scale.mels,
                min_frequency=0.0,
                max_frequency=config.sample_rate / 2,
                sampling_rate=config.sample_rate,
                norm="slaney",
                mel_scale="slaney",
            )
            self.register_buffer(
                f"filters_{scale.window}", torch.from_numpy(filters).float(), persistent=False
            )
            self.register_buffer(f"hann_{scale.window}", torch.hann_window(scale.window), persistent=False)

    @torch.no_grad()
    def spectra(self, audio: Float[Tensor, "b s"]) -> Float[Tensor, "b t v"]:
        """Log10 mel spectra of each frame, centred on its `STEPS` parts; audio is mirrored at its ends."""
        parts = []
        for scale in SCALES:
            edge = (scale.window - self.hop) // 2
            filters, hann = (
                cast(Tensor, getattr(self, f"{name}_{scale.window}")) for name in ("filters", "hann")
            )
            padded = F.pad(audio.float(), (edge, scale.window - self.hop - edge), mode="reflect")
            spectrum = torch.stft(
                padded, scale.window, self.hop, window=hann, center=False, return_complex=True
            )
            parts.append((spectrum.abs().mT @ filters).clamp(min=FLOOR).log10())
        return torch.cat(parts, -1).unflatten(1, (-1, STEPS)).flatten(2)

    def forward(self, latents: Float[Tensor, "b t d"], audio: Float[Tensor, "b s"]) -> Float[Tensor, ""]:
        """Mean absolute error, in float32; 0.05 is a decibel."""
        with torch.autocast(latents.device.type, enabled=False):
            return (self.mlp(latents.float()) - self.spectra(audio)).abs().mean()
