"""Spectral head: log-mel spectra from codes, before there is a decoder.

A decoder that must first learn to make sound is a poor teacher: most of its error is excitation at the wrong
phase, and the encoder learns little from that. A small head that predicts log-mel spectra from the
quantizer's output teaches the spectral envelope at once.
"""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tokenizer import TokenizerConfig
from training.audio_tokenizer.losses import mel_filters

STEPS = 8
"""Spectra of a frame: 100 a second at 12.5 frames."""
FLOOR = 1e-4
"""Floor of the mel magnitudes: inaudible at the loudness of speech."""
TYPICAL = -2.0
"""A typical logarithm, with which the head begins."""
SCALES = {512: 40, 1024: 80}
"""Mels of each window: one is short and smooth, the other resolves the harmonics of a voice."""
HIDDEN = 768


class SpectralHead(nn.Module):
    """An MLP from the latents of a frame to its spectra; used in training only."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.hop = config.frame_size // STEPS
        values = STEPS * sum(SCALES.values())
        out = nn.Linear(HIDDEN, values)
        nn.init.constant_(out.bias, TYPICAL)
        self.mlp = nn.Sequential(nn.Linear(config.code_dim, HIDDEN), nn.GELU(), out)
        for window, mels in SCALES.items():
            filters = mel_filters(config.sample_rate, window, mels)
            self.register_buffer(f"filters_{window}", filters, persistent=False)
            self.register_buffer(f"hann_{window}", torch.hann_window(window), persistent=False)

    @torch.no_grad()
    def spectra(self, audio: Float[Tensor, "b s"]) -> Float[Tensor, "b t v"]:
        """Compute the log10 mel spectra of each frame, centred on its `STEPS` parts.

        Args:
            audio: Samples; they are mirrored at the ends.
        """
        parts = []
        for window in SCALES:
            edge = (window - self.hop) // 2
            filters, hann = (cast(Tensor, getattr(self, f"{name}_{window}")) for name in ("filters", "hann"))
            padded = F.pad(audio.float(), (edge, window - self.hop - edge), mode="reflect")
            spectrum = torch.stft(padded, window, self.hop, window=hann, center=False, return_complex=True)
            parts.append((spectrum.abs().mT @ filters).clamp(min=FLOOR).log10())
        return torch.cat(parts, -1).unflatten(1, (-1, STEPS)).flatten(2)

    def forward(self, latents: Float[Tensor, "b t d"], audio: Float[Tensor, "b s"]) -> Float[Tensor, ""]:
        """Compute the mean absolute error of the predicted log10 spectra; 0.05 is a decibel."""
        with torch.autocast(latents.device.type, enabled=False):
            return (self.mlp(latents.float()) - self.spectra(audio)).abs().mean()
