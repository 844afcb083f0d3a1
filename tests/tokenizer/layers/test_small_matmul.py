import pytest
import torch

from tokenizer.layers.small_matmul import MAX_ROWS, MAX_WEIGHT_BYTES, MIN_WEIGHT_BYTES, Product

pytest.importorskip("numba")


@pytest.mark.parametrize("rows", [1, 3, MAX_ROWS, MAX_ROWS + 1])
@pytest.mark.parametrize("shape", [(12, 5), (160, 120), (384, 100)])
def test_a_product_is_the_linear_layer(shape: tuple[int, int], rows: int) -> None:
    layer, x = torch.nn.Linear(*shape, bias=False), torch.randn(rows, shape[0])
    product, residual = Product(layer.weight), torch.randn(rows, shape[1])
    before = residual.clone()
    with torch.no_grad():
        torch.testing.assert_close(product(x), layer(x))
        torch.testing.assert_close(product(x[:, None].expand(-1, 2, -1)[:, 1]), layer(x))
        torch.testing.assert_close(product.added_to(residual, x), residual + layer(x))
        out = torch.empty(rows, shape[1])
        assert product(x, out=out) is out
        torch.testing.assert_close(out, layer(x))
        layer.weight.mul_(2)  # in place: the product reads it
        torch.testing.assert_close(product(x), 2 * out)
    assert torch.equal(residual, before)


def test_a_row_does_not_depend_on_the_others() -> None:
    """A neighbour a thousand times as large, or of nothing but zeros, changes no bit."""
    product, x = Product(torch.randn(96, 384)), torch.randn(1, 384)
    with torch.no_grad():
        single = product(x)
        for other in (torch.randn(1, 384) * 1000, torch.zeros(1, 384)):
            for rows in range(2, MAX_ROWS + 1):
                batch = torch.cat([other.expand(rows - 1, -1), x])
                assert torch.equal(product(batch)[-1:], single)


def test_gradients_and_other_precisions_are_torch_products() -> None:
    weight, x = torch.randn(170, 100, requires_grad=True), torch.randn(2, 100, requires_grad=True)
    Product(weight)(x).sum().backward()
    torch.testing.assert_close(x.grad, weight.detach().sum(0).expand(2, -1))
    torch.testing.assert_close(weight.grad, x.detach().sum(0).expand(170, -1))
    with torch.no_grad():
        for dtype in (torch.float64, torch.bfloat16):
            converted, inputs = weight.to(dtype), x.to(dtype)
            torch.testing.assert_close(Product(converted)(inputs), inputs @ converted.T)
        columns = weight.T.contiguous().T  # another layout
        torch.testing.assert_close(Product(columns)(x), x @ columns.T)


def test_small_and_large_weights_are_left_to_torch() -> None:
    """What is outside the bounds takes the path of torch, and so its very bits."""
    for size in (MAX_WEIGHT_BYTES // 4 // 512 + 1, MIN_WEIGHT_BYTES // 4 // 512 - 1):
        weight, x = torch.randn(size, 512), torch.randn(2, 512)
        with torch.no_grad():
            assert torch.equal(Product(weight)(x), x @ weight.T)
