"""Losses of the tokenizer's training."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

WINDOWS = (32, 64, 128, 256, 512, 1024, 2048)
"""The seven scales of paper eq. 4."""


class MultiScaleMelLoss(nn.Module):
    """L1 distance of log10 mel spectrograms, summed over scales (paper eq. 4, with DAC's ladder of mels).

    Scale w: Hann window w, hop w/4, w * 5/32 Slaney mels of the magnitude, floor 1e-5. The paper's fixed
    number of mels would leave filters of the short windows empty at 24 kHz. Always float32.
    """

    def __init__(self, sample_rate: int, windows: tuple[int, ...] = WINDOWS) -> None:
        super().__init__()
        self.windows = windows
        for window in windows:
            filters = mel_filter_bank(
                num_frequency_bins=window // 2 + 1,
                num_mel_filters=window * 5 // 32,
                min_frequency=0.0,
                max_frequency=sample_rate / 2,
                sampling_rate=sample_rate,
                norm="slaney",
                mel_scale="slaney",
            )
            self.register_buffer(f"filters_{window}", torch.from_numpy(filters).float(), persistent=False)
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
