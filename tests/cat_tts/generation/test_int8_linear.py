import pytest
import torch

from cat_tts.generation.int8_linear import Int8Product, check_weights, round_to_int8


def test_int8_is_close_and_independent_of_other_rows() -> None:
    """A neighbour a thousand times as large, or of nothing but zeros, changes no bit."""
    weight, x = torch.randn(96, 64), torch.randn(1, 64)
    fused, exact = Int8Product(weight), x @ weight.T
    single = fused(x)
    assert 0 < (single - exact).norm() / exact.norm() < 0.02
    for other in (torch.randn(1, 64) * 1000, torch.zeros(1, 64), torch.full((1, 64), -3.0)):
        batch = fused(torch.cat([other, x, x * 0.5]))
        assert torch.equal(batch[1:2], single) and torch.equal(batch[2:], single * 0.5)
    assert torch.equal(fused(torch.zeros(2, 64)), torch.zeros(2, 96))
    assert torch.equal(fused.added_to(exact, x), exact + single)
    wide = torch.empty(2, 2, 96)
    assert fused(torch.cat([x, x]), out=wide[1]).data_ptr() == wide[1].data_ptr()
    assert torch.equal(wide[1], single.expand(2, -1))


def test_int8_weights_are_the_nearest_of_255_levels_of_their_column() -> None:
    weight = torch.tensor([[127.0, 3.4, -3.6, 0.0], [-0.5, 0.25, 0.0, 0.1]])
    applied = Int8Product(weight)(torch.eye(4)).T
    expected = torch.tensor([[127.0, 3.0, -4.0, 0.0], [-127, 64, 0, 25]]) * torch.tensor([[1.0], [0.5 / 127]])
    torch.testing.assert_close(applied, expected)
    torch.testing.assert_close(round_to_int8(weight), expected)


def test_int8_is_for_the_cpu() -> None:
    check_weights("int8", torch.device("cpu"))
    check_weights("float", torch.device("cuda"))
    with pytest.raises(ValueError, match=r"weights='int8' on cuda: .*take 'float'"):
        check_weights("int8", torch.device("cuda"))
