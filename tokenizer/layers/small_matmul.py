"""Products with a fixed weight; on a CPU, few rows go through a loop that reads the weight once.

One frame is a few rows, and takes as long as its weights take to be read. torch's products are made for many
rows: with up to eight they read a weight at a quarter to two thirds of the speed of this loop.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

MAX_ROWS = 12
"""Rows up to which the loop is faster."""
MIN_WEIGHT_BYTES, MAX_WEIGHT_BYTES = 2**16, 2**23
"""Sizes of a weight that suit the loop: smaller ones stay in the cache next to the core, and are multiplied
before the loop has begun; larger ones are for several cores."""


class Product:
    """Multiply by the transpose of a weight in nn.Linear's layout, as `nn.Linear` without a bias does.

    The weight may change in place, but not move.
    """

    def __init__(self, weight: Float[Tensor, "o i"]) -> None:
        self.weight = weight
        self._loop: Any = None
        fits = weight.device.type == "cpu" and MIN_WEIGHT_BYTES <= weight.nbytes <= MAX_WEIGHT_BYTES
        if fits and weight.dtype == torch.float32 and weight.is_contiguous():
            self._array, self._loop = weight.detach().numpy(), _compiled_loop()

    def __call__(self, x: Float[Tensor, "n i"], out: Float[Tensor, "n o"] | None = None) -> Tensor:
        """Return the product of `x` [n, i] and the weight, [n, o], in `out` where that is given."""
        if not self._fits_loop(x):
            return torch.mm(x, self.weight.t(), out=out)
        y = np.empty((x.shape[0], self.weight.shape[0]), np.float32) if out is None else out.numpy()
        self._loop(self._array, x.contiguous().numpy(), y)
        return torch.from_numpy(y) if out is None else out

    def added_to(self, residual: Float[Tensor, "n o"], x: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        """Return `residual` [n, o] plus the product of `x` [n, i] and the weight."""
        return self(x).add_(residual) if self._fits_loop(x) else torch.addmm(residual, x, self.weight.t())

    def _fits_loop(self, x: Tensor) -> bool:
        fits = self._loop is not None and x.shape[0] <= MAX_ROWS and x.dtype == torch.float32
        return fits and not torch.is_grad_enabled()


@cache
def _compiled_loop() -> Any:
    """Return the compiled loop, or None where there is no numba."""
    return compiled(_multiply) if find_spec("numba") is not None else None


def compiled(loop: Callable[..., None]) -> Any:
    """Compile a loop by numba; sums may be taken in another order than written.

    What is compiled is cached on disk, where numba finds a place for it.

    Args:
        loop: A function of arrays in the part of Python that numba compiles.

    Returns:
        The compiled function, which releases the interpreter lock.
    """
    import numba  # pyright: ignore[reportMissingImports]  # slow to import, and not on every machine

    try:
        return numba.njit(loop, fastmath=True, nogil=True, cache=True)
    except RuntimeError:  # no place
        return numba.njit(loop, fastmath=True, nogil=True)


@no_type_check  # numba compiles the bare function
def _multiply(weight: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """Set y[n, o] to the sum of weight[o, i] * x[n, i]; the sums of a row do not depend on other rows."""
    for column in range(weight.shape[0]):
        for row in range(x.shape[0]):
            total = np.float32(0)
            for i in range(weight.shape[1]):
                total += weight[column, i] * x[row, i]
            y[row, column] = total
