"""The two kinds of discriminators that the adversarial stage trains against (paper 3.2, A.1).

They are in `tokenizer`, not in its training, because a decoder adaptation is also trained against them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import ConfigDict
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from tokenizer.io import checkpoint

BANDS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Edges of the five bands, as fractions of a spectrum's bins."""

MIN_MAGNITUDE = 1e-5
"""Magnitude, as a part of a full-scale sine's, that counts as silence."""


class DiscriminatorOutput(NamedTuple):
    """The outputs of one sub-discriminator; a tuple, so that distributed wrappers find its tensors."""

    features: list[Float[Tensor, "b c y x"]]
    """The maps of all layers but the last, in the order in which they are computed."""
    logits: Float[Tensor, "b 1 y x"]
    """Patchwise: near 1 where it classifies the audio as real, near 0 where as reconstructed."""


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Widths and scales of the discriminators; the kernels, strides and bands are DAC's."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_channels: tuple[int, ...] = (32, 128, 512, 1024, 1024)
    """Widths of the layers of a period's discriminator; all but the last layer take every third step."""
    windows: tuple[int, ...] = (2048, 1024, 512)
    band_channels: int = 32
    magnitudes: bool = False
    """Read the logarithms of a spectrum's magnitudes, and no phases. Not the paper's: a small discriminator
    then tells real from reconstructed after a hundred steps, and a vocoder has no influence on the phases."""

    def __post_init__(self) -> None:
        if not self.periods and not self.windows:
            raise ValueError("neither periods nor windows: a discriminator needs at least one of them")
        if not self.period_channels or min(self.period_channels) < 1 or self.band_channels < 1:
            raise ValueError(
                f"period_channels={self.period_channels}, band_channels={self.band_channels}: "
                "give widths of 1 or more"
            )
        for period in self.periods:
            if period < 1:
                raise ValueError(f"period {period}: give a number of samples")
        for window in self.windows:
            if window < 32 or window % 4:
                raise ValueError(f"window {window}: give a multiple of 4 samples, 32 or more")


def paper() -> DiscriminatorConfig:
    """Return the paper's shape: 41.1M parameters by periods and 1.4M by spectra."""
    return DiscriminatorConfig()


def mini() -> DiscriminatorConfig:
    """Return the shape for the mini tokenizer: a small one on magnitudes, trained on a CPU in minutes."""
    return DiscriminatorConfig(periods=(), windows=(1024,), band_channels=8, magnitudes=True)


def small() -> DiscriminatorConfig:
    """Return the shape for the small tokenizer: half the paper's widths, at about a quarter of the cost."""
    return DiscriminatorConfig(period_channels=(16, 64, 256, 512, 512), band_channels=16)


def tiny() -> DiscriminatorConfig:
    """Return a shape of a few thousand weights, for tests."""
    return DiscriminatorConfig(periods=(2, 3), period_channels=(4, 6, 6), windows=(64,), band_channels=3)


def normalize_level(audio: Float[Tensor, "b s"]) -> Float[Tensor, "b s"]:
    """Remove the mean and scale to a peak of 0.8: level and offset must not tell real from reconstructed."""
    audio = audio - audio.mean(-1, keepdim=True)
    return 0.8 * audio / (audio.abs().amax(-1, keepdim=True) + 1e-9)


def fold_periods(audio: Float[Tensor, "b s"], period: int) -> Float[Tensor, "b 1 y x"]:
    """Fold audio by a period, so that samples one period apart are neighbours.

    Args:
        audio: [b, s]; reflection completes the last period.
        period: In samples.

    Returns:
        [b, 1, period, x], where row i holds samples i, i + period, i + 2 period, ...
    """
    padded = F.pad(audio[:, None], (0, -audio.shape[-1] % period), "reflect")
    return padded.unflatten(-1, (-1, period)).mT.contiguous()


def band_edges(bins: int) -> list[tuple[int, int]]:
    """Return the first bin of each band, and the first one beyond it."""
    return list(pairwise(int(edge * bins) for edge in BANDS))


class PeriodDiscriminator(nn.Module):
    """Convolutions over every `period`-th sample, so that samples one period apart are neighbours.

    Time lies along the last axis, which convolves faster than the usual transpose.
    """

    def __init__(self, period: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.period = period
        layers = []
        for i, (inputs, outputs) in enumerate(pairwise((1, *channels))):
            layers.append(_conv(inputs, outputs, (1, 5), (1, 1 if i == len(channels) - 1 else 3)))
        self.layers = cast("list[nn.Conv2d]", nn.ModuleList(layers))
        self.output = _conv(channels[-1], 1, (1, 3))

    def forward(self, audio: Float[Tensor, "b s"]) -> DiscriminatorOutput:
        """Classify audio [b, s], of which `Discriminators` has normalised the level."""
        x, features = fold_periods(audio, self.period), []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            features.append(x)
        return DiscriminatorOutput(features, self.output(x))


class SpectrumDiscriminator(nn.Module):
    """Convolutions over a complex spectrogram, with separate weights for each band (DAC)."""

    hann: Tensor

    def __init__(self, window: int, channels: int, magnitudes: bool = False) -> None:
        super().__init__()
        self.magnitudes = magnitudes
        self.register_buffer("hann", torch.hann_window(window), persistent=False)
        shapes = [((3, 9), (1, 1)), *[((3, 9), (1, 2))] * 3, ((3, 3), (1, 1))]
        stacks, inputs = [], 1 if magnitudes else 2
        for _ in pairwise(BANDS):
            stack = [_conv(channels if i else inputs, channels, *shape) for i, shape in enumerate(shapes)]
            stacks.append(nn.ModuleList(stack))
        self.bands = cast("list[list[nn.Conv2d]]", nn.ModuleList(stacks))
        self.output = _conv(channels, 1, (3, 3))

    def spectrum(self, audio: Float[Tensor, "b s"]) -> Float[Tensor, "b c t f"]:
        """Compute the spectrogram in float32; frame i is centred on the middle of hop i.

        Args:
            audio: [b, s] samples.

        Returns:
            Real and imaginary part [b, 2, t, f]; or with `magnitudes` one channel, their logarithms, near 0
            for silence and near 2 for the loudest.
        """
        window = len(self.hann)
        hop = window // 4
        sides = (window - hop) // 2
        with torch.autocast(audio.device.type, enabled=False):
            padded = F.pad(audio.float()[:, None], (sides, sides + -audio.shape[-1] % hop), "reflect")[:, 0]
            bins = torch.stft(padded, window, hop, window=self.hann, center=False, return_complex=True)
            # [b, f, t] by strides only: channels come last in memory, and so convolve faster.
            parts = torch.view_as_real(bins).permute(0, 3, 2, 1)
            if not self.magnitudes:
                return parts
            energy = parts.square().sum(1, keepdim=True) / window**2
            return (energy + MIN_MAGNITUDE**2).log10() / 4 - math.log10(MIN_MAGNITUDE) / 2

    def forward(self, audio: Float[Tensor, "b s"]) -> DiscriminatorOutput:
        """Classify audio [b, s], of which `Discriminators` has normalised the level."""
        spectrum, features, last = self.spectrum(audio), [], []
        for (low, high), stack in zip(band_edges(spectrum.shape[-1]), self.bands, strict=True):
            x = spectrum[..., low:high]
            for layer in stack:
                x = F.leaky_relu(layer(x), 0.1)
                features.append(x)
            last.append(x)
        return DiscriminatorOutput(features, self.output(torch.cat(last, -1)))


class Discriminators(nn.Module):
    """All sub-discriminators (paper 3.2, A.1).

    Nothing couples the items of a batch, so real and reconstructed audio can share one pass, which
    `DistributedDataParallel` needs: `real, fake = split_real_fake(discriminators(torch.cat([real, fake])))`.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        periods = [PeriodDiscriminator(period, config.period_channels) for period in config.periods]
        spectra = [
            SpectrumDiscriminator(window, config.band_channels, config.magnitudes)
            for window in config.windows
        ]
        self.periods = cast("list[PeriodDiscriminator]", nn.ModuleList(periods))
        self.spectra = cast("list[SpectrumDiscriminator]", nn.ModuleList(spectra))

    def forward(self, audio: Float[Tensor, "b s"]) -> list[DiscriminatorOutput]:
        """Classify audio by every sub-discriminator.

        Args:
            audio: [b, s] samples.

        Returns:
            One output for each period, then one for each window.

        Raises:
            ValueError: If the audio is too short for a window or a period.
        """
        shortest = max(max(self.config.windows, default=0) * 5 // 8, max(self.config.periods, default=0))
        if audio.shape[-1] < shortest:
            raise ValueError(
                f"{audio.shape[-1]} samples are too few for these discriminators: give {shortest} or more"
            )
        with torch.autocast(audio.device.type, enabled=False):
            audio = normalize_level(audio.float())
        return [discriminator(audio) for discriminator in (*self.periods, *self.spectra)]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        checkpoint.save(folder, self.config, self.state_dict())

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "Discriminators":
        """Load what `save_pretrained` wrote, in float32, with weights that are not trained.

        Args:
            folder: A folder, or a hub id.

        Returns:
            The discriminators, in evaluation mode.

        Raises:
            CheckpointError: If the folder cannot be loaded.
        """
        folder = checkpoint.local_folder(folder)
        config = checkpoint.read_config(DiscriminatorConfig, folder / checkpoint.CONFIG)
        discriminators = cls(config)
        checkpoint.load_weights(discriminators, checkpoint.read_weights(folder), folder)
        return discriminators.float().eval().requires_grad_(False)


def generator_loss(fake: Sequence[DiscriminatorOutput]) -> Float[Tensor, ""]:
    """Return the adversarial loss of the generator (LSGAN), summed over sub-discriminators.

    Args:
        fake: Outputs for reconstructed audio.

    Returns:
        The sum of the means of (1 - logit)^2.
    """
    return torch.stack([(1 - output.logits.float()).square().mean() for output in fake]).sum()


def split_real_fake(
    outputs: list[DiscriminatorOutput],
) -> tuple[list[DiscriminatorOutput], list[DiscriminatorOutput]]:
    """Split the outputs for a batch of real, then reconstructed audio.

    Args:
        outputs: Outputs of all sub-discriminators for the whole batch.

    Returns:
        Those for the first half of the batch, and those for the second.
    """
    first, second = [], []
    for features, logits in outputs:
        half = len(logits) // 2
        first.append(DiscriminatorOutput([x[:half] for x in features], logits[:half]))
        second.append(DiscriminatorOutput([x[half:] for x in features], logits[half:]))
    return first, second


def _conv(inputs: int, outputs: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> nn.Conv2d:
    """Build a weight-normed convolution, padded so that only the stride shortens."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel[0] // 2, kernel[1] // 2))
    return cast(nn.Conv2d, weight_norm(conv))
