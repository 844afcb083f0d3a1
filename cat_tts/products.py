"""Products with a fixed weight for few rows: float, or 8-bit integers on the CPU."""

import warnings
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Weights = Literal["float", "int8"]
SMALLEST_INT8 = 200_000
"""Weights of fewer elements stay float: reading them costs less than quantising what they are applied to."""


class Product:
    """x -> x W, for a weight in nn.Linear's layout [out, in]."""

    def __init__(self, weight: Float[Tensor, "o i"]) -> None:
        out, inner = weight.shape
        # Of the two layouts the one with the longer rows is read faster.
        self.weight = weight.t().contiguous() if out > inner else weight.clone().t()

    def __call__(self, x: Float[Tensor, "n i"], out: Float[Tensor, "n o"] | None = None) -> Tensor:
        return torch.mm(x, self.weight, out=out)

    def added_to(self, residual: Float[Tensor, "n o"], x: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        """residual + x W."""
        return torch.addmm(residual, x, self.weight)


class Int8Product(Product):
    """The same with 8 bits a weight and a scale for every column, by fbgemm.

    fbgemm quantises all rows of x by their common range, so that one take would hear of another. Here every
    row is divided by its largest value, and a row that holds 1 and -1 keeps the range the same for all.
    """

    def __init__(self, weight: Float[Tensor, "o i"]) -> None:
        scale = (weight.abs().amax(1).float() / 127).clamp(min=1e-12)
        with warnings.catch_warnings():
            # torch has announced that its quantized tensors will go; there is no other way to these kernels.
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
            zero = torch.zeros(len(weight), dtype=torch.long)
            quantised = torch.quantize_per_channel(weight.float(), scale, zero, 0, torch.qint8)
        self._packed = torch.ops.quantized.linear_prepack(quantised, None)
        self._range = torch.zeros(1, weight.shape[1])
        self._range[0, :2] = torch.tensor([1.0, -1.0])
        self._buffers: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, x: Float[Tensor, "n i"], out: Float[Tensor, "n o"] | None = None) -> Tensor:
        if len(x) not in self._buffers:
            whole = self._range.repeat(1 + len(x), 1)
            self._buffers[len(x)] = whole, whole[1:]
        whole, rows = self._buffers[len(x)]
        largest = torch.linalg.vector_norm(x, torch.inf, dim=-1, keepdim=True).clamp_(min=1e-20)
        torch.div(x, largest, out=rows)
        # Seven bits for x: on AVX2, sums of two products of eight bits would overflow.
        product = torch.ops.quantized.linear_dynamic(whole, self._packed, reduce_range=True)
        return torch.mul(product[1:], largest, out=out)

    def added_to(self, residual: Float[Tensor, "n o"], x: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        """residual + x W."""
        return self(x).add_(residual)


def product(weight: Float[Tensor, "o i"], weights: Weights) -> Product:
    """The product with a weight, in the arithmetic asked for where it pays."""
    return Int8Product(weight) if weights == "int8" and weight.numel() >= SMALLEST_INT8 else Product(weight)


def check_weights(weights: Weights, device: torch.device) -> None:
    """ValueError for weights that a device cannot have."""
    if weights == "int8" and (
        device.type != "cpu" or "fbgemm" not in torch.backends.quantized.supported_engines
    ):
        raise ValueError(f"weights='int8' on {device.type}: they are for x86 CPUs; take 'float' here")
