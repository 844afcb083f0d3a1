"""Products with a fixed weight, on a CPU for few rows by a loop that reads the weight once.

One frame is a few rows, and takes as long as its weights take to be read. torch's products are made for many
rows: with up to eight they read a weight at a quarter to two thirds of the speed of this loop.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

FEW = 12
"""Rows up to which the loop is faster."""
SMALLEST, LARGEST = 2**16, 2**23
"""Bytes of a weight: smaller ones stay in the cache next to the core, and are multiplied before the loop has
begun; larger ones are for several cores."""


class Product:
    """x -> x W, for a weight in nn.Linear's layout [out, in] that may change in place, but not move."""

    def __init__(self, weight: Float[Tensor, "o i"]) -> None:
        self.weight = weight
        self._loop: Any = None
        fits = weight.device.type == "cpu" and SMALLEST <= weight.nbytes <= LARGEST
        if fits and weight.dtype == torch.float32 and weight.is_contiguous():
            self._array, self._loop = weight.detach().numpy(), _few_rows()

    def __call__(self, x: Float[Tensor, "n i"], out: Float[Tensor, "n o"] | None = None) -> Tensor:
        if not self._few(x):
            return torch.mm(x, self.weight.t(), out=out)
        y = np.empty((x.shape[0], self.weight.shape[0]), np.float32) if out is None else out.numpy()
        self._loop(self._array, x.contiguous().numpy(), y)
        return torch.from_numpy(y) if out is None else out

    def added_to(self, residual: Float[Tensor, "n o"], x: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        """residual + x W."""
        return self(x).add_(residual) if self._few(x) else torch.addmm(residual, x, self.weight.t())

    def _few(self, x: Tensor) -> bool:
        few = self._loop is not None and x.shape[0] <= FEW and x.dtype == torch.float32
        return few and not torch.is_grad_enabled()


@cache
def _few_rows() -> Any:
    """None where there is no numba."""
    return compiled(_multiply) if find_spec("numba") is not None else None


def compiled(loop: Callable[..., None]) -> Any:
    """The loop compiled by numba; sums may be taken in another order than written.

    What is compiled is kept on disk, where numba finds a place for it.
    """
    import numba  # pyright: ignore[reportMissingImports]  # slow to import, and not on every machine

    try:
        return numba.njit(loop, fastmath=True, nogil=True, cache=True)
    except RuntimeError:  # no place
        return numba.njit(loop, fastmath=True, nogil=True)


def _multiply(weight: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """y[n, o] = sum of weight[o, i] * x[n, i]; the sums of a row do not depend on other rows."""
    for column in range(weight.shape[0]):
        for row in range(x.shape[0]):
            total = np.float32(0)
            for i in range(weight.shape[1]):
                total += weight[column, i] * x[row, i]
            y[row, column] = total
