"""The head that turns WavLM's features into a speaker embedding: ECAPA-TDNN in its small published form.

Everywhere the order is convolution, ReLU, batch norm, and the pooling sees no global context: both differ
from the ECAPA-TDNN of the paper of that name and of most libraries.
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

SCALE = 8
"""Groups that a Res2 block convolves one after the other; the last one passes as it is."""
DILATIONS = (2, 3, 4)


@dataclass(frozen=True, kw_only=True)
class EcapaSizes:
    """The published head has the defaults."""

    features: int = 1024
    channels: int = 512
    pooled: int = 1536
    bottleneck: int = 128
    """Of the channel gates (squeeze and excitation)."""
    attention: int = 128
    embedding: int = 256


class ConvReluNorm(nn.Module):
    """Convolution, ReLU and then the norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, x: Float[Tensor, "b d t"]) -> Float[Tensor, "b e t"]:
        """Apply convolution, ReLU and normalization."""
        return self.bn(self.conv(x).relu())


class Res2Conv(nn.Module):
    """Each of `SCALE` groups of channels but the last is convolved together with what the one before gave."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        width = channels // SCALE
        convs = [nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation) for _ in range(SCALE - 1)]
        self.convs = cast("list[nn.Conv1d]", nn.ModuleList(convs))
        self.bns = cast("list[nn.BatchNorm1d]", nn.ModuleList(nn.BatchNorm1d(width) for _ in convs))

    def forward(self, x: Float[Tensor, "b d t"]) -> Float[Tensor, "b d t"]:
        """Apply the convolutions to groups of channels, each after adding the previous group's output."""
        *groups, last = x.chunk(SCALE, dim=1)
        outputs, previous = [], torch.zeros_like(last)
        for group, conv, norm in zip(groups, self.convs, self.bns, strict=True):
            previous = norm(conv(previous + group).relu())
            outputs.append(previous)
        return torch.cat([*outputs, last], dim=1)


class ChannelGate(nn.Module):
    """Squeeze and excitation: each channel times a number in 0..1 that depends on the means over time."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, bottleneck)
        self.linear2 = nn.Linear(bottleneck, channels)

    def forward(self, x: Float[Tensor, "b d t"]) -> Float[Tensor, "b d t"]:
        """Scale channels by their gates."""
        return x * self.linear2(self.linear1(x.mean(dim=2)).relu()).sigmoid()[:, :, None]


class EcapaBlock(nn.Module):
    """SE-Res2 block with a residual."""

    def __init__(self, channels: int, bottleneck: int, dilation: int) -> None:
        super().__init__()
        self.first = ConvReluNorm(channels, channels)
        self.res2 = Res2Conv(channels, dilation)
        self.last = ConvReluNorm(channels, channels)
        self.gate = ChannelGate(channels, bottleneck)

    def forward(self, x: Float[Tensor, "b d t"]) -> Float[Tensor, "b d t"]:
        """Add the block's output to its input."""
        return x + self.gate(self.last(self.res2(self.first(x))))


class AttentivePooling(nn.Module):
    """Mean and standard deviation over time, each channel weighted by its own softmax over time."""

    def __init__(self, channels: int, attention: int) -> None:
        super().__init__()
        self.linear1 = nn.Conv1d(channels, attention, 1)
        self.linear2 = nn.Conv1d(attention, channels, 1)

    def forward(self, x: Float[Tensor, "b d t"]) -> Float[Tensor, "b e"]:
        """Pool over time: weighted mean and standard deviation."""
        weight = self.linear2(self.linear1(x).tanh()).softmax(dim=2)
        mean = (weight * x).sum(dim=2)
        variance = (weight * x.square()).sum(dim=2) - mean.square()
        return torch.cat([mean, variance.clamp(min=1e-9).sqrt()], dim=1)


class Ecapa(nn.Module):
    """Features to embeddings."""

    def __init__(self, sizes: EcapaSizes) -> None:
        super().__init__()
        self.layer1 = ConvReluNorm(sizes.features, sizes.channels, 5)
        self.layer2, self.layer3, self.layer4 = (
            EcapaBlock(sizes.channels, sizes.bottleneck, dilation) for dilation in DILATIONS
        )
        self.conv = nn.Conv1d(len(DILATIONS) * sizes.channels, sizes.pooled, 1)
        self.pooling = AttentivePooling(sizes.pooled, sizes.attention)
        self.bn = nn.BatchNorm1d(2 * sizes.pooled)
        self.linear = nn.Linear(2 * sizes.pooled, sizes.embedding)

    def forward(self, features: Float[Tensor, "b t d"]) -> Float[Tensor, "b e"]:
        """Embed the speaker of features [b, t, d]."""
        second = self.layer2(self.layer1(features.mT))
        third = self.layer3(second)
        fourth = self.layer4(third)
        joined = self.conv(torch.cat([second, third, fourth], dim=1)).relu()
        return self.linear(self.bn(self.pooling(joined)))
