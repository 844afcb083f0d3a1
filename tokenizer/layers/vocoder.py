"""The optional last step of a decoder: pulses and noise, through filters that it draws."""

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor, nn

from tokenizer.config import VocoderConfig

REFERENCE = 120.0
"""Hz, at pitch 0."""
TYPICAL, QUIETEST, LOUDEST = -2.0, -6.0, 2.0
"""Log10 magnitudes of a band: at 0, and how far they go."""
HIGHEST_HARMONIC = 0.95
"""Part of the highest frequency there is, above which there are no harmonics."""
NOISE = 2**17
"""Samples after which the noise comes again."""
FADE = 8
"""The last 1/8 of an impulse response fades out."""


class Tables(NamedTuple):
    """What all vocoders of one shape share on one device."""

    filters: Float[Tensor, "two c f"]
    """From log10 magnitudes of the bands to logarithm and phase of a minimum-phase filter."""
    fade: Float[Tensor, " i"]
    """Over the impulse response."""
    rise: Float[Tensor, " p"]
    """From the filters of the step before to those of this one."""
    noise: Float[Tensor, " n"]


@dataclass
class VocoderState:
    """Where a batch of streams of controls stands, row by row."""

    phase: Float[Tensor, " b"]
    """Of the pulses, in cycles; float64, as it is added up over the whole stream."""
    position: Int[Tensor, " b"]
    """In the noise."""
    begun: Bool[Tensor, " b"]
    previous: Float[Tensor, "b c"]
    """The controls of the last step."""
    tail: Float[Tensor, "b m p"]
    """What that step and those before it still have to say, in the patches to come."""

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._tensors())

    def restart(self, row: int) -> None:
        """Let `row` begin anew."""
        for tensor in self._tensors():
            tensor[row] = 0

    def move(self, source: int, target: int) -> None:
        """Let `target` be what `source` is, and `source` begin anew."""
        if source != target:
            for tensor in self._tensors():
                tensor[target] = tensor[source]
        self.restart(source)

    def adopt(self, row: int, other: "VocoderState") -> None:
        """Let `row` go on from where the only row of `other` stands."""
        for mine, theirs in zip(self._tensors(), other._tensors(), strict=True):
            mine[row] = theirs[0]

    def copy(self) -> "VocoderState":
        return VocoderState(*(tensor.clone() for tensor in self._tensors()))

    def keep(self, *rows: Tensor) -> None:
        """New values of all fields, in their order, for the first rows; the others lose their past."""
        for mine, new in zip(self._tensors(), rows, strict=True):
            mine[: len(new)] = new.detach()
            mine[len(new) :] = 0

    def _tensors(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]


class Vocoder(nn.Module):
    """Audio from a pitch and two filters, one for pulses and one for noise; no weights, and not the paper's.

    Controls of a step: octaves above 120 Hz, then log10 magnitudes of the harmonic part, less `TYPICAL`, in
    bands evenly spaced on the mel scale from 0 to the highest frequency there is, then those of the noise.
    Over the patch of a step, pitch and filters go from those of the step before to its own; controls of
    `-TYPICAL`, a magnitude of 1, in all bands give pulses, or noise, of unit power. Gradients reach the
    magnitudes, not the pitch.
    """

    def __init__(self, config: VocoderConfig, patch: int, sample_rate: int) -> None:
        super().__init__()
        self.config, self.patch, self.sample_rate = config, patch, sample_rate

    def forward(
        self, controls: Float[Tensor, "b t c"], state: VocoderState | None = None
    ) -> Float[Tensor, "b s"]:
        """Float32 audio of `patch` samples a step; `state` continues a stream.

        A call may bring fewer rows than `state` has: they are the first ones, and the others lose their past.
        """
        with torch.autocast(controls.device.type, enabled=False):
            return self._render(controls.float(), state)

    def state(self, batch: int, device: torch.device) -> VocoderState:
        """No past, for a stream of `batch` signals."""
        tails = -(-(self.patch + self.config.impulse - 1) // self.patch) - 1
        return VocoderState(
            phase=torch.zeros(batch, dtype=torch.float64, device=device),
            position=torch.zeros(batch, dtype=torch.long, device=device),
            begun=torch.zeros(batch, dtype=torch.bool, device=device),
            previous=torch.zeros(batch, self.config.controls, device=device),
            tail=torch.zeros(batch, tails, self.patch, device=device),
        )

    def _render(self, controls: Float[Tensor, "b t c"], state: VocoderState | None) -> Float[Tensor, "b s"]:
        rows, steps, _ = controls.shape
        tables = _tables(self.config, self.patch, self.sample_rate, controls.device)
        size = transform_size(self.patch, self.config.impulse)
        begin = state or self.state(rows, controls.device)
        previous = torch.where(begin.begun[:rows, None].clone(), begin.previous[:rows], controls[:, 0])
        path = torch.cat([previous[:, None], controls], 1)

        pulses, phase = self._pulses(path[..., 0].detach(), begin.phase[:rows])
        here = begin.position[:rows, None] + torch.arange(steps * self.patch, device=controls.device)
        noise = tables.noise[here % NOISE].view_as(pulses)
        sources = torch.stack([pulses, noise], 2)
        rising = torch.fft.rfft(sources * tables.rise, size)
        falling = torch.fft.rfft(sources * (1 - tables.rise), size)
        filters = self._filters(path[..., 1:], tables, size)
        both = (rising * filters[:, 1:] + falling * filters[:, :-1]).sum(2)

        tails = begin.tail.shape[1]
        heard = torch.fft.irfft(both, size)[..., : self.patch + self.config.impulse - 1]
        parts = F.pad(heard, (0, (1 + tails) * self.patch - heard.shape[-1])).unflatten(-1, (-1, self.patch))
        audio = F.pad(begin.tail[:rows], (0, 0, 0, steps))
        for i, part in enumerate(parts.unbind(2)):
            audio = audio + F.pad(part, (0, 0, i, tails - i))
        if state:
            position = (state.position[:rows] + steps * self.patch) % NOISE
            begun = torch.ones_like(state.begun[:rows])
            state.keep(phase, position, begun, controls[:, -1], audio[:, steps:])
        return audio[:, :steps].flatten(1)

    def _pulses(
        self, octaves: Float[Tensor, "b u"], phase: Float[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b t p"], Float[Tensor, " b"]]:
        """Cosines of all harmonics, as large as each other, and the phase at the end.

        Their sum is that of Dirichlet: 1/2 + sum of cos(k x) = sin((K + 1/2) x) / (2 sin(x / 2)).
        """
        lowest, highest = (
            math.log2(f / REFERENCE) for f in (self.config.lowest_pitch, self.config.highest_pitch)
        )
        octaves = octaves.double().clamp(lowest, highest)[..., None]
        before, now = octaves[:, :-1], octaves[:, 1:]
        ramp = torch.arange(1, self.patch + 1, dtype=torch.float64, device=octaves.device) / self.patch
        speed = (before + (now - before) * ramp).exp2_().mul_(REFERENCE / self.sample_rate)
        turns = speed.flatten(1).cumsum(1).add_(phase[:, None])
        turns = turns.sub_(turns.round()).view_as(speed)  # -1/2 to 1/2
        nyquist = HIGHEST_HARMONIC * self.sample_rate / 2 / REFERENCE
        harmonics = (nyquist / torch.maximum(before, now).exp2()).floor()
        above = turns * (harmonics + 0.5)
        above = above.sub_(above.round()).float().mul_(2 * math.pi).sin_()
        below = turns.float().mul_(math.pi).sin_().mul_(2)
        harmonics = harmonics.float()
        summed = torch.where(below.abs() < 1e-12, harmonics + 0.5, above / below) - 0.5
        return summed * (2 / harmonics).sqrt(), turns[:, -1, -1]

    def _filters(
        self, magnitudes: Float[Tensor, "b u c"], tables: Tables, size: int
    ) -> Complex[Tensor, "b u two f"]:
        """Spectra of impulse responses that begin at once and have ended when the table says so."""
        bands = (magnitudes + TYPICAL).clamp(QUIETEST, LOUDEST).unflatten(-1, (2, -1))
        logarithm, phase = (bands @ table for table in tables.filters)
        response = torch.fft.irfft(torch.polar(logarithm.exp(), phase), size)
        return torch.fft.rfft(response[..., : self.config.impulse] * tables.fade, size)


def transform_size(patch: int, impulse: int) -> int:
    """The least power of two, or three times one, into which a patch fits with all that follows from it."""
    power = 1 << (patch + impulse - 1).bit_length()
    return power * 3 // 4 if power * 3 // 4 >= patch + impulse else power


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _tables(config: VocoderConfig, patch: int, sample_rate: int, device: torch.device) -> Tables:
    """Made on first use, not with the module: that may stand on the meta device until its weights come."""
    cpu, size = torch.device("cpu"), transform_size(patch, config.impulse)
    hertz = torch.linspace(0, sample_rate / 2, size // 2 + 1, dtype=torch.float64, device=cpu)
    mel = (1 + hertz / 700).log()
    place = mel / mel[-1] * (config.bands - 1)
    logarithm = (1 - (place - torch.arange(config.bands, device=cpu)[:, None]).abs()).clamp(min=0) * math.log(
        10
    )
    causal = torch.zeros(size, dtype=torch.float64, device=cpu)  # the cepstrum of a minimum-phase filter
    causal[0] = causal[size // 2] = 1
    causal[1 : size // 2] = 2
    phase = torch.fft.rfft(torch.fft.irfft(logarithm, size) * causal).imag
    fade = torch.ones(config.impulse, device=cpu)
    ending = config.impulse // FADE
    fade[config.impulse - ending :] = 1 - _rise(ending)
    noise = torch.randn(NOISE, generator=torch.Generator(cpu).manual_seed(0), device=cpu)
    noise = (noise - noise.mean()) / noise.std()
    made = Tables(torch.stack([logarithm, phase]).float(), fade, _rise(patch), noise)
    return Tables(*(table.to(device) for table in made))


def _rise(steps: int) -> Float[Tensor, " p"]:
    return 0.5 - 0.5 * torch.cos(math.pi * (torch.arange(steps, device="cpu") + 0.5) / steps)
