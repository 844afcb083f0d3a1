"""The pitch of speech, and what codes tell of it.

Spectra of a few bands say little about pitch, and nothing else in a short training asks for it. The tracker
is the normalised cross-correlation of a window with what follows it (Talkin 1995), the smallest lag among
the good ones, and a median over time; it makes the labels. The head asks the codes for them.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from soxr import resample
from torch import Tensor, nn

from tokenizer import TokenizerConfig
from tokenizer.layers.vocoder import REFERENCE
from training.audio_tokenizer.heads.spectral import STEPS

LOWEST, HIGHEST = 60.0, 400.0
"""Hz."""
RATE = 8000
"""Of the samples that are compared: pitch lies far below."""
WINDOW = 0.032
"""Seconds that are compared with what follows them."""
ENOUGH = 0.85
"""Of the best correlation: among lags as good as this the smallest is the period, not a multiple of it."""
SMOOTHED = 7
"""Steps of the median."""
VOICED, SURE = 0.5, 0.85
"""Correlations between which a step's pitch counts more and more."""
QUIET = 1e-3
"""RMS below which nothing is heard."""
HIDDEN, CONTEXT = 256, 3
"""Width of the head, and frames that it reads from."""


class Pitch(NamedTuple):
    """Of each step: octaves above `tokenizer.layers.vocoder.REFERENCE`, and how sure that is, 0 to 1."""

    octaves: Float[Tensor, "b t"]
    sure: Float[Tensor, "b t"]


@torch.no_grad()
def track(audio: Float[Tensor, "b s"], sample_rate: int, hop: int) -> Pitch:
    """Pitch around the end of each `hop` samples, where `tokenizer.layers.vocoder` has it."""
    steps = audio.shape[1] // hop
    low = torch.from_numpy(resample(audio.float().cpu().numpy().T, sample_rate, RATE)).T
    size, least, most = round(WINDOW * RATE), int(RATE / HIGHEST), int(RATE / LOWEST) + 1
    reach = size + most + 1
    firsts = (torch.arange(1, steps + 1) * hop * RATE / sample_rate - reach / 2).round().long()
    padded = F.pad(low, (reach, 2 * reach))
    frames = padded[:, (firsts + reach)[:, None] + torch.arange(reach)]
    frames = frames - frames.mean(-1, keepdim=True)
    n = 1 << (reach + size - 1).bit_length()
    head, whole = torch.fft.rfft(frames[..., :size], n), torch.fft.rfft(frames, n)
    products = torch.fft.irfft(head.conj() * whole, n)[..., : most + 2]
    energy = F.pad(frames.square().cumsum(-1), (1, 0))
    energies = energy[..., size : size + most + 2] - energy[..., : most + 2]
    silence = size * QUIET**2
    likeness = products / ((energies[..., :1] + silence) * (energies + silence)).sqrt()

    inner, before, after = likeness[..., least:-1], likeness[..., least - 1 : -2], likeness[..., least + 1 :]
    peaks = torch.where((inner >= before) & (inner > after), inner, 0.0)
    best = peaks.amax(-1, keepdim=True)
    lag = (peaks >= ENOUGH * best.clamp(min=1e-6)).byte().argmax(-1, keepdim=True)
    a, b, c = (part.gather(-1, lag) for part in (before, inner, after))
    shift = 0.5 * (a - c) / (a - 2 * b + c).clamp(max=-1e-6)
    hertz = RATE / (lag + least + shift.clamp(-0.5, 0.5)).squeeze(-1)
    octaves = (hertz / REFERENCE).log2()
    sides = SMOOTHED // 2
    octaves = F.pad(octaves, (sides, sides), mode="replicate").unfold(-1, SMOOTHED, 1).median(-1).values
    sure = ((best.squeeze(-1) - VOICED) / (SURE - VOICED)).clamp(0, 1)
    return Pitch(octaves.to(audio.device), sure.to(audio.device))


class PitchHead(nn.Module):
    """From the latents of a frame and of those before it to its pitch; it lasts as long as a training."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.near = nn.Conv1d(config.code_dim, HIDDEN, CONTEXT)
        self.out = nn.Linear(HIDDEN, STEPS)
        nn.init.zeros_(self.out.weight)

    def forward(self, latents: Float[Tensor, "b t d"]) -> Float[Tensor, "b u"]:
        """Octaves of `STEPS` parts of each frame, in float32."""
        with torch.autocast(latents.device.type, enabled=False):
            before = F.pad(latents.float(), (0, 0, CONTEXT - 1, 0))
            return self.out(F.gelu(self.near(before.mT).mT)).flatten(1)


def pitch_loss(octaves: Float[Tensor, "b t"], wanted: Pitch) -> Float[Tensor, ""]:
    """Mean absolute error in octaves, where there is a pitch and as far as it is sure."""
    error = (octaves.float() - wanted.octaves).abs() * wanted.sure
    return error.sum() / wanted.sure.sum().clamp(min=1)
