"""The optimizer Muon (Jordan et al. 2024), which orthogonalizes in float32 where bfloat16 is slow.

`torch.optim.Muon` iterates in bfloat16 everywhere. A CPU without units for it takes ten times as long for
that as for the same products in float32, and longer than for all the rest of a step.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""Coefficients of the quintic, those of torch.optim.Muon."""
ITERATIONS = 5
MIN_NORM = 1e-7
"""Least norm that a matrix is divided by."""


class Muon(Optimizer):
    """The step of torch.optim.Muon with Nesterov momentum and `adjust_lr_fn="match_rms_adamw"`."""

    def __init__(
        self, weights: Iterable[Tensor], lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        """Check and take the weights.

        Args:
            weights: Matrices.
            lr: Learning rate; the root mean square of a step is that of AdamW's at this rate.
            weight_decay: Weight decay, as AdamW's.
            momentum: Part of the averaged gradient that stays in a step.

        Raises:
            ValueError: A weight is no matrix.
        """
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay})
        self.momentum = momentum
        for group in self.param_groups:
            if any(weight.ndim != 2 for weight in group["params"]):
                raise ValueError("Muon changes matrices alone: give all other weights to AdamW")

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Change all weights that have a gradient; `closure` is not supported."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(weight)
                average = state["momentum_buffer"].lerp_(weight.grad, 1 - self.momentum)
                update = orthogonalize(weight.grad.lerp(average, self.momentum))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-0.2 * math.sqrt(max(weight.shape)) * group["lr"])


def orthogonalize(matrix: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """Bring all singular values near 1 (0.7 to 1.2), by a quintic Newton-Schulz iteration.

    Args:
        matrix: Any matrix.

    Returns:
        A matrix with about the same singular vectors, in the precision of the iteration: bfloat16 on a GPU
        and on CPUs with units for it, else as `matrix`.
    """
    a, b, c = COEFFICIENTS
    x = matrix if _slow_in_bfloat16(matrix.device) else matrix.bfloat16()
    x = x.T if len(matrix) > matrix.shape[1] else x
    x = x / x.norm().clamp(min=MIN_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if len(matrix) > matrix.shape[1] else x


def _slow_in_bfloat16(device: torch.device) -> bool:
    return device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
