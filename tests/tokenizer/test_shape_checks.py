"""Shapes in annotations are enforced while these tests run."""

import pytest
import torch
from jaxtyping import TypeCheckError

from tokenizer.layers.attention import attend
from tokenizer.layers.quantizer_inference import Projection


def test_a_wrong_shape_is_refused() -> None:
    q, k, v = (torch.randn(1, 2, steps, 4) for steps in (5, 5, 6))
    attend(q, k, k, window=3)
    with pytest.raises(TypeCheckError, match=r"parameter 'v'"):
        attend(q, k, v, window=3)


def test_a_wrong_field_of_a_dataclass_is_refused() -> None:
    with pytest.raises(TypeCheckError, match=r"parameter 'bias'"):
        Projection(torch.zeros(3, 4), torch.zeros(3))


@pytest.mark.usefixtures("unchecked_shapes")
def test_checks_can_be_switched_off() -> None:
    Projection(torch.zeros(3, 4), torch.zeros(3))
