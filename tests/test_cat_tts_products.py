import pytest
import torch

from cat_tts.products import Int8Product, Product, check_weights, product


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
def test_float_product_is_the_linear_layer(shape: tuple[int, int]) -> None:
    layer, x, residual = (
        torch.nn.Linear(*shape, bias=False),
        torch.randn(3, shape[0]),
        torch.randn(3, shape[1]),
    )
    fused = Product(layer.weight.detach())
    torch.testing.assert_close(fused(x), layer(x))
    torch.testing.assert_close(fused.added_to(residual, x), residual + layer(x))
    out = torch.empty(3, shape[1])
    assert fused(x, out=out) is out
    torch.testing.assert_close(out, layer(x))


def test_int8_is_close_and_hears_of_no_other_row() -> None:
    """A neighbour a thousand times as large, or of nothing but zeros, changes no bit."""
    weight, x = torch.randn(96, 64), torch.randn(1, 64)
    fused, exact = Int8Product(weight), x @ weight.T
    alone = fused(x)
    assert 0 < (alone - exact).norm() / exact.norm() < 0.02
    for other in (torch.randn(1, 64) * 1000, torch.zeros(1, 64), torch.full((1, 64), -3.0)):
        batch = fused(torch.cat([other, x, x * 0.5]))
        assert torch.equal(batch[1:2], alone) and torch.equal(batch[2:], alone * 0.5)
    assert torch.equal(fused(torch.zeros(2, 64)), torch.zeros(2, 96))
    assert torch.equal(fused.added_to(exact, x), exact + alone)


def test_small_weights_stay_float() -> None:
    kinds = [type(product(torch.randn(n, 512), weights)) for n in (8, 512) for weights in ("float", "int8")]
    assert kinds == [Product, Product, Product, Int8Product]


def test_int8_is_for_the_cpu() -> None:
    check_weights("int8", torch.device("cpu"))
    check_weights("float", torch.device("cuda"))
    with pytest.raises(ValueError, match=r"weights='int8' on cuda: .*take 'float'"):
        check_weights("int8", torch.device("cuda"))
