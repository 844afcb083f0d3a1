"""Training in bfloat16 on a CPU."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from training.common.distributed import ROW_MULTIPLE, lower_precision

CPU = torch.device("cpu")


class Rows(TorchDispatchMode):
    """Notes the rows of every product."""

    def __init__(self) -> None:
        super().__init__()
        self.observed: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.observed.append(args[-2].shape[0])
        return func(*args, **(kwargs or {}))


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4, bias=False))


def test_products_have_numbers_of_rows_that_recur() -> None:
    model, x = perceptron(), torch.randn(3, 50, 8)
    lower_precision(model, CPU)
    with Rows() as rows:
        model(x)
    assert rows.observed == [2 * ROW_MULTIPLE] * 2


def test_the_rows_filled_in_count_for_nothing() -> None:
    """Results and gradients are those of plain layers, to the precision of bfloat16, and float32."""
    plain, low = perceptron(), perceptron()
    low.load_state_dict(plain.state_dict())
    lower_precision(low, CPU)
    x, push = torch.randn(3, 50, 8), torch.randn(3, 50, 4)
    found: list[list[Tensor]] = []
    for model in (plain, low):
        decoder_inputs = x.clone().requires_grad_()
        made = model(decoder_inputs)
        (made * push).sum().backward()
        gradients = [decoder_inputs.grad, *(parameter.grad for parameter in model.parameters())]
        found.append([made, *(gradient for gradient in gradients if gradient is not None)])
    assert len(found[0]) == len(found[1]) == 5
    for wanted, other in zip(*found, strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(other, wanted, rtol=0.03, atol=0.03 * float(wanted.detach().std()) + 0.02)


def test_no_rows_are_no_rows() -> None:
    model = perceptron()
    lower_precision(model, CPU)
    assert model(torch.zeros(0, 8)).shape == (0, 4)
