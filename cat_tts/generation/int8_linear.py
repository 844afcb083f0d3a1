"""Products of the fused steps with their weights: float, or 8-bit integers on the CPU."""

from functools import cache
from importlib.util import find_spec
from typing import Any, Literal, no_type_check

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tokenizer.layers.small_matmul import Product, compiled

Weights = Literal["float", "int8"]


class Int8Product(Product):
    """A `Product` with 8 bits a weight and a scale for every column; x and the sums stay float32.

    With few rows a product takes as long as its weight takes to be read: a quarter of the bytes is the gain.
    torch's own kernels quantise x as well and are slower at one row: this one is a loop that numba compiles.
    """

    def __init__(self, weight: Float[Tensor, "o i"]) -> None:
        levels, scale = _levels(weight)
        self._weight, self._scale = levels.to(torch.int8).numpy(), scale.numpy()

    def __call__(self, x: Float[Tensor, "n i"], out: Float[Tensor, "n o"] | None = None) -> Tensor:
        """Return the product [n, o] of `x` [n, i] and the weight, in `out` where that is given."""
        y = np.empty((x.shape[0], len(self._scale)), np.float32) if out is None else out.numpy()
        _kernel()(self._weight, self._scale, x.contiguous().numpy(), y)
        return torch.from_numpy(y) if out is None else out

    def _fits_loop(self, x: Tensor) -> bool:
        return True


def round_to_int8(weight: Float[Tensor, "o i"]) -> Float[Tensor, "o i"]:
    """Return the weight [o, i] that an `Int8Product` applies in place of this one."""
    levels, scale = _levels(weight)
    return (levels * scale[:, None]).to(weight.dtype)


def _levels(weight: Float[Tensor, "o i"]) -> tuple[Float[Tensor, "o i"], Float[Tensor, " o"]]:
    """Whole numbers from -127 to 127, and the scale of each column of the result."""
    weight = weight.float()
    scale = (weight.abs().amax(1) / 127).clamp(min=1e-12)
    return (weight / scale[:, None]).round(), scale


@cache
def _kernel() -> Any:
    return compiled(_multiply)


@no_type_check  # numba compiles the bare function
def _multiply(weight: np.ndarray, scale: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """y[n, o] = scale[o] * sum of weight[o, i] * x[n, i]; the sums of a row do not depend on other rows."""
    for column in range(weight.shape[0]):
        for row in range(x.shape[0]):
            total = np.float32(0)
            for i in range(weight.shape[1]):
                total += np.float32(weight[column, i]) * x[row, i]
            y[row, column] = total * scale[column]


def make_product(weight: Float[Tensor, "o i"], weights: Weights) -> Product:
    """Return the product with a copy of a weight [o, i], as floats or as 8-bit integers."""
    return Int8Product(weight) if weights == "int8" else Product(weight.clone())


def check_weights(weights: Weights, device: torch.device) -> None:
    """Raise ValueError for weights that a device does not support, or that need a missing package."""
    if weights == "int8" and device.type != "cpu":
        raise ValueError(f"weights='int8' on {device.type}: they are for CPUs; take 'float' here")
    if weights == "int8" and find_spec("numba") is None:
        raise ValueError("weights=\"int8\" needs numba: pip install numba, or take 'float'")
