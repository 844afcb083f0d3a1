"""Further speakers out of a recording: its formants or its pitch are shifted, each without the other.

Playing speech at another speed shifts pitch and formants together, as if all speakers were scaled copies of
each other. Here the spectral envelope is warped and the harmonics stay where they are, or the other way
round, so that vocal tract and pitch vary independently in a corpus. The recording's own spectrum is filtered
by the ratio of the warped envelope to the envelope: phases, breath and noise stay natural, and nothing is
resynthesized.
"""

import math
import zlib
from dataclasses import dataclass

import numpy as np
import soxr
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tokenizer.layers.vocoder import REFERENCE_PITCH
from training.data.pitch_tracking import track_pitch

FORMANT_FACTORS = (0.84, 1.19)
"""Smallest and largest factor of the formants: about the range between men and children."""
PITCH_FACTORS = (0.80, 1.25)
"""Smallest and largest factor of the fundamental frequency."""
MIN_LOG_FACTOR = 0.05
"""Least logarithm of a factor, with either sign: a factor nearer to 1 leaves the same speaker."""
WINDOW = 1024
"""Samples of the filter's window, and the length of its transform."""
HOP = WINDOW // 4
MIN_PITCH, UNVOICED_PITCH = 75.0, 250.0
"""Hz: lowest pitch that spectra are smoothed by, and the one that stands in where there is no pitch."""
MAX_GAIN, MAX_ATTENUATION = 18.0, 40.0
"""Decibels that a warped envelope may add and take away, so that the noise where a recording has no energy
stays faint."""


@dataclass(frozen=True)
class VoiceChange:
    """How one speaker is turned into another.

    Attributes:
        formants: factor of all frequencies of the spectral envelope.
        pitch: factor of the fundamental frequency, and of the tempo: the recording is played at this speed.
    """

    formants: float = 1.0
    pitch: float = 1.0

    def __post_init__(self) -> None:
        if not (0.5 <= self.formants <= 2 and 0.5 <= self.pitch <= 2):
            raise ValueError(f"formants={self.formants}, pitch={self.pitch}: give factors from 0.5 to 2")

    @property
    def mark(self) -> str:
        """The suffix of the speaker's name: `@f0.90`, `@p1.12`, `@f0.90p1.12`, or nothing."""
        formants = "" if self.formants == 1 else f"f{self.formants:.2f}"
        pitch = "" if self.pitch == 1 else f"p{self.pitch:.2f}"
        return f"@{formants}{pitch}" if formants or pitch else ""


def draw_changes(speaker: str, count: int, seed: int) -> list[VoiceChange]:
    """Draw the changes of one speaker.

    The first shifts the formants, the second the pitch, the third both, and so on in turn. They depend on the
    seed and the speaker's name alone: all clips of a speaker are changed alike, and a larger `count` only
    adds changes.

    Args:
        speaker: name of the speaker.
        count: number of changes.
        seed: seed of the corpus.

    Returns:
        `count` changes with different marks.
    """
    draw = np.random.default_rng((seed, zlib.crc32(speaker.encode())))
    changes: dict[str, VoiceChange] = {}
    while len(changes) < count:
        kind = len(changes) % 3
        formants, pitch = _factor(draw, *FORMANT_FACTORS), _factor(draw, *PITCH_FACTORS)
        change = VoiceChange(1.0 if kind == 1 else formants, 1.0 if kind == 0 else pitch)
        changes.setdefault(change.mark, change)
    return list(changes.values())


def change_voice(audio: Float[Tensor, " s"], sample_rate: int, change: VoiceChange) -> Float[Tensor, " s"]:
    """Shift formants and pitch of a recording.

    Args:
        audio: samples [s].
        sample_rate: samples a second.
        change: the factors.

    Returns:
        Samples [about s / change.pitch].
    """
    if change.pitch != 1:
        audio = torch.from_numpy(soxr.resample(audio.numpy(), sample_rate * change.pitch, sample_rate))
    return warp_envelope(audio, sample_rate, change.formants / change.pitch)


def warp_envelope(audio: Float[Tensor, " s"], sample_rate: int, factor: float) -> Float[Tensor, " s"]:
    """Multiply all frequencies of the spectral envelope by a factor, and keep the fundamental frequency.

    Args:
        audio: samples [s].
        sample_rate: samples a second.
        factor: above 1 makes the vocal tract shorter.

    Returns:
        Samples [s].
    """
    if factor == 1 or not len(audio):
        return audio
    padded = F.pad(audio, (WINDOW, 2 * WINDOW))
    windows = padded.unfold(0, WINDOW, HOP)
    levels = envelope(windows, _pitch(padded, sample_rate, len(windows)), sample_rate)
    gains = 10 ** ((_warp(levels, factor) - levels).clamp(-MAX_ATTENUATION, MAX_GAIN) / 20)
    window = torch.hann_window(WINDOW)
    filtered = torch.fft.irfft(torch.fft.rfft(windows * window) * gains, WINDOW) * window
    size = (1, HOP * (len(windows) - 1) + WINDOW)
    overlapped = F.fold(filtered.T[None], size, (1, WINDOW), stride=HOP).flatten()
    return overlapped[WINDOW : WINDOW + len(audio)] * HOP / window.square().sum()


def envelope(
    windows: Float[Tensor, "t w"], pitch: Float[Tensor, " t"], sample_rate: int
) -> Float[Tensor, "t f"]:
    """Estimate spectral envelopes with windows that follow the pitch, and so without the harmonics' ripple.

    This is CheapTrick (Morise 2015): a window of three periods, a mean of the power over two thirds of the
    pitch, and a lifter that removes what is periodic with the pitch.

    Args:
        windows: samples around each step [t, WINDOW].
        pitch: fundamental frequency of each step [t], Hz.
        sample_rate: samples a second.

    Returns:
        Levels [t, WINDOW / 2 + 1], decibels.
    """
    time = (torch.arange(WINDOW) - WINDOW // 2) / sample_rate
    phase = (time * pitch[:, None] / 1.5).clamp(-1, 1)
    power = torch.fft.rfft(windows * (0.5 + 0.5 * torch.cos(math.pi * phase))).abs().square()
    power = _mean_around(power, pitch * WINDOW / sample_rate / 3) + 1e-10
    cepstrum = torch.fft.irfft(power.log10(), WINDOW)
    turns = pitch[:, None] * torch.arange(WINDOW // 2 + 1) / sample_rate
    lifter = torch.sinc(turns) * (1.18 - 0.18 * torch.cos(2 * math.pi * turns))
    return 10 * torch.fft.rfft(cepstrum * torch.cat([lifter, lifter[:, 1:-1].flip(1)], 1)).real


def _mean_around(power: Float[Tensor, "t f"], reach: Float[Tensor, " t"]) -> Float[Tensor, "t f"]:
    """Average over `reach` bins on both sides; beyond its ends the spectrum is mirrored."""
    bins, edge = power.shape[1], math.ceil(float(reach.max())) + 2
    mirrored = torch.cat([power[:, 1 : edge + 1].flip(1), power, power[:, -edge - 1 : -1].flip(1)], 1)
    sums = F.pad(mirrored.double().cumsum(1), (1, 0))
    centre = torch.arange(bins) + edge + 0.5
    high, low = (_interpolate(sums, centre + sign * reach[:, None]) for sign in (1, -1))
    return ((high - low) / (2 * reach[:, None])).float()


def _warp(levels: Float[Tensor, "t f"], factor: float) -> Float[Tensor, "t f"]:
    """Multiply all frequencies of the levels by `factor`; the last level stands in for those beyond it."""
    last = levels.shape[1] - 1
    return _interpolate(levels, (torch.arange(last + 1) / factor).clamp(max=last).expand_as(levels))


def _interpolate(table: Tensor, position: Tensor) -> Tensor:
    """Interpolate linearly between the columns of `table`."""
    low = position.long().clamp(max=table.shape[1] - 2)
    part = (position - low).to(table.dtype)
    return (1 - part) * table.gather(1, low) + part * table.gather(1, low + 1)


def _pitch(padded: Float[Tensor, " s"], sample_rate: int, steps: int) -> Float[Tensor, " t"]:
    """Return the pitch in Hz at the middle of each window, `UNVOICED_PITCH` where there is none."""
    tracked = track_pitch(padded[None], sample_rate, HOP)
    first = WINDOW // 2 // HOP - 1  # the pitch of a step is that around its end
    octaves, confidence = (part[0, first : first + steps] for part in tracked)
    hertz = (REFERENCE_PITCH * 2**octaves).clamp(min=MIN_PITCH)
    return torch.where(confidence > 0, hertz, UNVOICED_PITCH)


def _factor(draw: np.random.Generator, lowest: float, highest: float) -> float:
    """Draw a factor of two decimals that is far enough from 1 to be audible."""
    while abs(log_factor := draw.uniform(math.log(lowest), math.log(highest))) < MIN_LOG_FACTOR:
        pass
    return round(math.exp(log_factor), 2)
