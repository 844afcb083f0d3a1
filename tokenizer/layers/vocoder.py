"""The vocoder, an optional last step of a decoder: pulses and noise through filters that it sets."""

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor, nn

from tokenizer.config import VocoderConfig

REFERENCE_PITCH = 120.0
"""Hz, at pitch 0."""
TYPICAL_MAGNITUDE, MIN_MAGNITUDE, MAX_MAGNITUDE = -2.0, -6.0, 2.0
"""Log10 magnitudes of a band: at 0, and their limits."""
MAX_HARMONIC_FREQUENCY = 0.95
"""Part of the Nyquist frequency above which there are no harmonics."""
NOISE_SAMPLES = 2**17
"""Samples after which the noise repeats."""
FADE_DIVISOR = 8
"""The last 1/8 of an impulse response fades out."""


class Tables(NamedTuple):
    """Constants that all vocoders of one shape share on one device."""

    filters: Float[Tensor, "two c f"]
    """From log10 magnitudes of the bands to logarithm and phase of a minimum-phase filter."""
    fade: Float[Tensor, " i"]
    """Gain over the impulse response."""
    rise: Float[Tensor, " p"]
    """Weight, over a patch, of this step's filters against those of the step before."""
    noise: Float[Tensor, " n"]
    """White noise of unit power."""


@dataclass
class VocoderState:
    """The state of a batch of streams of controls; the first axis of each field is that of the slots."""

    phase: Float[Tensor, " b"]
    """Phase of the pulses, in cycles; float64, as it is added up over the whole stream."""
    position: Int[Tensor, " b"]
    """Position in the noise, in samples."""
    started: Bool[Tensor, " b"]
    """Whether the stream has had a step."""
    previous: Float[Tensor, "b c"]
    """The controls of the last step."""
    tail: Float[Tensor, "b m p"]
    """Audio of that step and those before it that falls into the m patches to come."""

    @property
    def nbytes(self) -> int:
        """Bytes of all fields."""
        return sum(tensor.nbytes for tensor in self._tensors())

    def reset(self, slot: int) -> None:
        """Begin a new stream in `slot`."""
        for tensor in self._tensors():
            tensor[slot] = 0

    def move(self, source: int, target: int) -> None:
        """Move the stream of slot `source` to slot `target`, and reset `source`."""
        if source != target:
            for tensor in self._tensors():
                tensor[target] = tensor[source]
        self.reset(source)

    def load_state(self, slot: int, other: "VocoderState") -> None:
        """Continue in `slot` from the state of the only slot of `other`."""
        for mine, theirs in zip(self._tensors(), other._tensors(), strict=True):
            mine[slot] = theirs[0]

    def copy(self) -> "VocoderState":
        """Return an independent copy."""
        return VocoderState(*(tensor.clone() for tensor in self._tensors()))

    def update(self, *values: Tensor) -> None:
        """Set the state of the first slots; the others lose their history.

        Args:
            values: New values of all fields, in their order, for the slots that advanced.
        """
        for mine, new in zip(self._tensors(), values, strict=True):
            mine[: len(new)] = new.detach()
            mine[len(new) :] = 0

    def _tensors(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]


class Vocoder(nn.Module):
    """Render audio from a pitch and two filters, one for pulses and one for noise; not part of the paper.

    It has no weights. Controls of a step: octaves above 120 Hz, then log10 magnitudes of the harmonic part,
    less `TYPICAL_MAGNITUDE`, in bands evenly spaced on the mel scale from 0 to the Nyquist frequency, then
    those of the noise. Over the patch of a step, pitch and filters go from those of the step before to its
    own; controls of `-TYPICAL_MAGNITUDE`, a magnitude of 1, in all bands give pulses, or noise, of unit
    power. Gradients reach the magnitudes, not the pitch.
    """

    def __init__(self, config: VocoderConfig, patch: int, sample_rate: int) -> None:
        super().__init__()
        self.config, self.patch, self.sample_rate = config, patch, sample_rate

    def forward(
        self, controls: Float[Tensor, "b t c"], state: VocoderState | None = None
    ) -> Float[Tensor, "b s"]:
        """Render controls as audio.

        Args:
            controls: [b, t, c], the pitch and the magnitudes of each step.
            state: Continues streams, and is updated. It may have more than b slots: the signals use the first
                ones, and the others lose their history.

        Returns:
            Float32 audio [b, s] of `patch` samples a step.
        """
        with torch.autocast(controls.device.type, enabled=False):
            return self._render(controls.float(), state)

    def state(self, batch: int, device: torch.device) -> VocoderState:
        """Return the state in which streams of `batch` signals begin."""
        tails = -(-(self.patch + self.config.impulse - 1) // self.patch) - 1
        return VocoderState(
            phase=torch.zeros(batch, dtype=torch.float64, device=device),
            position=torch.zeros(batch, dtype=torch.long, device=device),
            started=torch.zeros(batch, dtype=torch.bool, device=device),
            previous=torch.zeros(batch, self.config.controls, device=device),
            tail=torch.zeros(batch, tails, self.patch, device=device),
        )

    def _render(self, controls: Float[Tensor, "b t c"], state: VocoderState | None) -> Float[Tensor, "b s"]:
        batch, steps, _ = controls.shape
        tables = _tables(self.config, self.patch, self.sample_rate, controls.device)
        size = transform_size(self.patch, self.config.impulse)
        start = state or self.state(batch, controls.device)
        previous = torch.where(start.started[:batch, None].clone(), start.previous[:batch], controls[:, 0])
        path = torch.cat([previous[:, None], controls], 1)

        pulses, phase = self._pulses(path[..., 0].detach(), start.phase[:batch])
        samples = start.position[:batch, None] + torch.arange(steps * self.patch, device=controls.device)
        noise = tables.noise[samples % NOISE_SAMPLES].view_as(pulses)
        sources = torch.stack([pulses, noise], 2)
        rising = torch.fft.rfft(sources * tables.rise, size)
        falling = torch.fft.rfft(sources * (1 - tables.rise), size)
        filters = self._filters(path[..., 1:], tables, size)
        both = (rising * filters[:, 1:] + falling * filters[:, :-1]).sum(2)

        tails = start.tail.shape[1]
        responses = torch.fft.irfft(both, size)[..., : self.patch + self.config.impulse - 1]
        missing = (1 + tails) * self.patch - responses.shape[-1]
        parts = F.pad(responses, (0, missing)).unflatten(-1, (-1, self.patch))
        audio = F.pad(start.tail[:batch], (0, 0, 0, steps))
        for i, part in enumerate(parts.unbind(2)):
            audio = audio + F.pad(part, (0, 0, i, tails - i))
        if state:
            position = (state.position[:batch] + steps * self.patch) % NOISE_SAMPLES
            started = torch.ones_like(state.started[:batch])
            state.update(phase, position, started, controls[:, -1], audio[:, steps:])
        return audio[:, :steps].flatten(1)

    def _pulses(
        self, octaves: Float[Tensor, "b u"], phase: Float[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b t p"], Float[Tensor, " b"]]:
        """Return cosines of all harmonics, of equal amplitude, and the phase at the end.

        Their sum is that of Dirichlet: 1/2 + sum of cos(k x) = sin((K + 1/2) x) / (2 sin(x / 2)).
        """
        lowest, highest = (
            math.log2(f / REFERENCE_PITCH) for f in (self.config.lowest_pitch, self.config.highest_pitch)
        )
        octaves = octaves.double().clamp(lowest, highest)[..., None]
        before, now = octaves[:, :-1], octaves[:, 1:]
        ramp = torch.arange(1, self.patch + 1, dtype=torch.float64, device=octaves.device) / self.patch
        speed = (before + (now - before) * ramp).exp2_().mul_(REFERENCE_PITCH / self.sample_rate)
        cycles = speed.flatten(1).cumsum(1).add_(phase[:, None])
        cycles = cycles.sub_(cycles.round()).view_as(speed)  # -1/2 to 1/2
        nyquist = MAX_HARMONIC_FREQUENCY * self.sample_rate / 2 / REFERENCE_PITCH
        harmonics = (nyquist / torch.maximum(before, now).exp2()).floor()
        above = cycles * (harmonics + 0.5)
        above = above.sub_(above.round()).float().mul_(2 * math.pi).sin_()
        below = cycles.float().mul_(math.pi).sin_().mul_(2)
        harmonics = harmonics.float()
        summed = torch.where(below.abs() < 1e-12, harmonics + 0.5, above / below) - 0.5
        return summed * (2 / harmonics).sqrt(), cycles[:, -1, -1]

    def _filters(
        self, magnitudes: Float[Tensor, "b u c"], tables: Tables, size: int
    ) -> Complex[Tensor, "b u two f"]:
        """Return the filters' spectra, from impulse responses that the table of fades ends."""
        bands = (magnitudes + TYPICAL_MAGNITUDE).clamp(MIN_MAGNITUDE, MAX_MAGNITUDE).unflatten(-1, (2, -1))
        logarithm, phase = (bands @ table for table in tables.filters)
        response = torch.fft.irfft(torch.polar(logarithm.exp(), phase), size)
        return torch.fft.rfft(response[..., : self.config.impulse] * tables.fade, size)


def transform_size(patch: int, impulse: int) -> int:
    """Return the length of the Fourier transforms: the least 2^n or 3 * 2^n that holds a patch's response.

    Args:
        patch: Samples of a patch.
        impulse: Samples of an impulse response.

    Returns:
        The length in samples.
    """
    power = 1 << (patch + impulse - 1).bit_length()
    return power * 3 // 4 if power * 3 // 4 >= patch + impulse else power


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _tables(config: VocoderConfig, patch: int, sample_rate: int, device: torch.device) -> Tables:
    """Compute the tables on first use: the module may be on the meta device until its weights are loaded."""
    cpu, size = torch.device("cpu"), transform_size(patch, config.impulse)
    hertz = torch.linspace(0, sample_rate / 2, size // 2 + 1, dtype=torch.float64, device=cpu)
    mel = (1 + hertz / 700).log()
    band = mel / mel[-1] * (config.bands - 1)
    logarithm = (1 - (band - torch.arange(config.bands, device=cpu)[:, None]).abs()).clamp(min=0) * math.log(
        10
    )
    causal = torch.zeros(size, dtype=torch.float64, device=cpu)  # the cepstrum of a minimum-phase filter
    causal[0] = causal[size // 2] = 1
    causal[1 : size // 2] = 2
    phase = torch.fft.rfft(torch.fft.irfft(logarithm, size) * causal).imag
    fade = torch.ones(config.impulse, device=cpu)
    ending = config.impulse // FADE_DIVISOR
    fade[config.impulse - ending :] = 1 - _rise(ending)
    noise = torch.randn(NOISE_SAMPLES, generator=torch.Generator(cpu).manual_seed(0), device=cpu)
    noise = (noise - noise.mean()) / noise.std()
    tables = Tables(torch.stack([logarithm, phase]).float(), fade, _rise(patch), noise)
    return Tables(*(table.to(device) for table in tables))


def _rise(steps: int) -> Float[Tensor, " p"]:
    return 0.5 - 0.5 * torch.cos(math.pi * (torch.arange(steps, device="cpu") + 0.5) / steps)
