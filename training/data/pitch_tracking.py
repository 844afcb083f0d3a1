"""The pitch of speech, tracked: labels for a training, and what tells two voices apart.

The tracker is the normalised cross-correlation of a window with the samples behind it (Talkin 1995), the
smallest lag among the good ones, and a median over time.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from soxr import resample
from torch import Tensor

from tokenizer.layers.vocoder import REFERENCE_PITCH

MIN_HZ, MAX_HZ = 60.0, 400.0
"""Lowest and highest pitch."""
TRACKER_RATE = 8000
"""Samples a second that are compared: pitch lies far below."""
WINDOW_SECONDS = 0.032
"""Seconds that are compared with later ones."""
PERIOD_THRESHOLD = 0.85
"""Part of the best correlation: the smallest lag that is as good as this is the period, not a multiple of
it."""
MEDIAN_STEPS = 7
"""Steps of the median."""
UNVOICED_THRESHOLD, VOICED_THRESHOLD = 0.5, 0.85
"""Correlations between which the confidence of a step rises from 0 to 1."""
SILENCE_RMS = 1e-3
"""RMS of silence."""


class Pitch(NamedTuple):
    """The pitch of each step."""

    octaves: Float[Tensor, "b t"]
    """Octaves above `tokenizer.layers.vocoder.REFERENCE_PITCH`."""
    confidence: Float[Tensor, "b t"]
    """0 where there is no pitch, to 1 where it is certain."""


@torch.no_grad()
def track_pitch(audio: Float[Tensor, "b s"], sample_rate: int, hop: int) -> Pitch:
    """Track the pitch around the end of each `hop` samples, where `tokenizer.layers.vocoder` has it.

    Args:
        audio: Samples.
        sample_rate: Samples a second.
        hop: Samples of a step.
    """
    steps = audio.shape[1] // hop
    low = torch.from_numpy(resample(audio.float().cpu().numpy().T, sample_rate, TRACKER_RATE)).T
    size, least, most = (
        round(WINDOW_SECONDS * TRACKER_RATE),
        int(TRACKER_RATE / MAX_HZ),
        int(TRACKER_RATE / MIN_HZ) + 1,
    )
    reach = size + most + 1
    firsts = (torch.arange(1, steps + 1) * hop * TRACKER_RATE / sample_rate - reach / 2).round().long()
    padded = F.pad(low, (reach, 2 * reach))
    frames = padded[:, (firsts + reach)[:, None] + torch.arange(reach)]
    frames = frames - frames.mean(-1, keepdim=True)
    n = 1 << (reach + size - 1).bit_length()
    head, whole = torch.fft.rfft(frames[..., :size], n), torch.fft.rfft(frames, n)
    products = torch.fft.irfft(head.conj() * whole, n)[..., : most + 2]
    energy = F.pad(frames.square().cumsum(-1), (1, 0))
    energies = energy[..., size : size + most + 2] - energy[..., : most + 2]
    silence = size * SILENCE_RMS**2
    correlation = products / ((energies[..., :1] + silence) * (energies + silence)).sqrt()

    inner, before, after = (
        correlation[..., least:-1],
        correlation[..., least - 1 : -2],
        correlation[..., least + 1 :],
    )
    peaks = torch.where((inner >= before) & (inner > after), inner, 0.0)
    best = peaks.amax(-1, keepdim=True)
    lag = (peaks >= PERIOD_THRESHOLD * best.clamp(min=1e-6)).byte().argmax(-1, keepdim=True)
    a, b, c = (part.gather(-1, lag) for part in (before, inner, after))
    shift = 0.5 * (a - c) / (a - 2 * b + c).clamp(max=-1e-6)
    hertz = TRACKER_RATE / (lag + least + shift.clamp(-0.5, 0.5)).squeeze(-1)
    octaves = (hertz / REFERENCE_PITCH).log2()
    sides = MEDIAN_STEPS // 2
    octaves = F.pad(octaves, (sides, sides), mode="replicate").unfold(-1, MEDIAN_STEPS, 1).median(-1).values
    span = VOICED_THRESHOLD - UNVOICED_THRESHOLD
    confidence = ((best.squeeze(-1) - UNVOICED_THRESHOLD) / span).clamp(0, 1)
    return Pitch(octaves.to(audio.device), confidence.to(audio.device))
