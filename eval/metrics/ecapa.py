"""The head that turns WavLM's features into a speaker embedding: ECAPA-TDNN in its small published form.

Everywhere the order is convolution, ReLU, batch norm, and the pooling has no global context: both differ
from the ECAPA-TDNN of the paper of that name and of most libraries.
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

SCALE = 8
"""Groups that a Res2 block convolves one after the other; the last one passes unchanged."""
DILATIONS = (2, 3, 4)
"""Dilation in steps by block."""


@dataclass(frozen=True, kw_only=True)
class EcapaSizes:
    """Sizes of the head; the defaults are those of the published one."""

    features: int = 1024
    channels: int = 512
    pooled: int = 1536
    bottleneck: int = 128
    """Hidden width of the channel gates (squeeze and excitation)."""
    attention: int = 128
    embedding: int = 256


class ConvReluNorm(nn.Module):
    """A convolution followed by ReLU and then batch norm.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel: Kernel size in steps, an odd number.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, x: Float[Tensor, "b d t"]) -> Float[Tensor, "b e t"]:
        """Apply convolution, ReLU and normalization to x [b, d, t]; return [b, e, t]."""
        return self.bn(self.conv(x).relu())


class Res2Conv(nn.Module):
    """A Res2 block, which convolves each group of channels together with the output of the group before.

    There are `SCALE` groups; the last one passes unchanged.

    Args:
        channels: Channels of input and output, a multiple of `SCALE`.
        dilation: Dilation of the convolutions in steps.
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        width = channels // SCALE
        convs = [nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation) for _ in range(SCALE - 1)]
        self.convs = cast("list[nn.Conv1d]", nn.ModuleList(convs))
        self.bns = cast("list[nn.BatchNorm1d]", nn.ModuleList(nn.BatchNorm1d(width) for _ in convs))

    def forward(self, x: Float[Tensor, "b d t"]) -> Float[Tensor, "b d t"]:
        """Apply the convolutions to groups of channels, each after adding the previous group's output.

        Args:
            x: [b, d, t].

        Returns:
            [b, d, t].
        """
        *groups, last = x.chunk(SCALE, dim=1)
        outputs, previous = [], torch.zeros_like(last)
        for group, conv, norm in zip(groups, self.convs, self.bns, strict=True):
            previous = norm(conv(previous + group).relu())
            outputs.append(previous)
        return torch.cat([*outputs, last], dim=1)


class ChannelGate(nn.Module):
    """Squeeze and excitation: each channel times a number in 0..1 that depends on the means over time.

    Args:
        channels: Channels of input and output.
        bottleneck: Width of the hidden layer.
    """

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, bottleneck)
        self.linear2 = nn.Linear(bottleneck, channels)

    def forward(self, x: Float[Tensor, "b d t"]) -> Float[Tensor, "b d t"]:
        """Scale the channels of x [b, d, t] by their gates."""
        return x * self.linear2(self.linear1(x.mean(dim=2)).relu()).sigmoid()[:, :, None]


class EcapaBlock(nn.Module):
    """An SE-Res2 block with a residual.

    Args:
        channels: Channels of input and output.
        bottleneck: Width of the hidden layer of the channel gate.
        dilation: Dilation of the Res2 convolutions in steps.
    """

    def __init__(self, channels: int, bottleneck: int, dilation: int) -> None:
        super().__init__()
        self.first = ConvReluNorm(channels, channels)
        self.res2 = Res2Conv(channels, dilation)
        self.last = ConvReluNorm(channels, channels)
        self.gate = ChannelGate(channels, bottleneck)

    def forward(self, x: Float[Tensor, "b d t"]) -> Float[Tensor, "b d t"]:
        """Add the block's output to its input x [b, d, t]."""
        return x + self.gate(self.last(self.res2(self.first(x))))


class AttentivePooling(nn.Module):
    """Mean and standard deviation over time, each channel weighted by its own softmax over time.

    Args:
        channels: Channels of the input.
        attention: Width of the hidden layer that computes the weights.
    """

    def __init__(self, channels: int, attention: int) -> None:
        super().__init__()
        self.linear1 = nn.Conv1d(channels, attention, 1)
        self.linear2 = nn.Conv1d(attention, channels, 1)

    def forward(self, x: Float[Tensor, "b d t"]) -> Float[Tensor, "b e"]:
        """Pool over time: weighted mean and standard deviation.

        Args:
            x: [b, d, t].

        Returns:
            [b, 2 d], the means first.
        """
        weight = self.linear2(self.linear1(x).tanh()).softmax(dim=2)
        mean = (weight * x).sum(dim=2)
        variance = (weight * x.square()).sum(dim=2) - mean.square()
        return torch.cat([mean, variance.clamp(min=1e-9).sqrt()], dim=1)


class Ecapa(nn.Module):
    """ECAPA-TDNN, which maps features to speaker embeddings."""

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
        """Embed the speaker of each sequence of features.

        Args:
            features: [b, t, d], d = `EcapaSizes.features`.

        Returns:
            Embeddings [b, e], e = `EcapaSizes.embedding`; their length is not normalized.
        """
        second = self.layer2(self.layer1(features.mT))
        third = self.layer3(second)
        fourth = self.layer4(third)
        joined = self.conv(torch.cat([second, third, fourth], dim=1)).relu()
        return self.linear(self.bn(self.pooling(joined)))
