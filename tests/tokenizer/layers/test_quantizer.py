import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenizer.config import QuantizerConfig
from tokenizer.layers.quantizer import ResidualVQ

CONFIG = QuantizerConfig(num_codebooks=5, codebook_size=16, codebook_dim=4, dim=10)


def quantizer(config: QuantizerConfig = CONFIG) -> ResidualVQ:
    """A quantizer whose weight-norm gains are not those of its initial weights."""
    built = ResidualVQ(config, code_dim=12)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return built


def become_identity(projection: nn.Module) -> None:
    projection.load_state_dict(
        {
            "bias": torch.zeros(2),
            "parametrizations.weight.original0": torch.ones(2, 1),
            "parametrizations.weight.original1": torch.eye(2),
        }
    )


def by_hand(*codebooks: list[list[float]]) -> ResidualVQ:
    """Two dimensions everywhere, all projections the identity, and the given rows."""
    rows = torch.tensor(codebooks)
    config = QuantizerConfig(num_codebooks=len(rows), codebook_size=rows.shape[1], codebook_dim=2, dim=2)
    vq = ResidualVQ(config, code_dim=2)
    for module in (vq, *vq.layers):
        become_identity(module.project_in)
        become_identity(module.project_out)
    for layer, table in zip(vq.layers, rows, strict=True):
        layer.codebook.weight = nn.Parameter(table)
    return vq


def test_one_codebook_by_hand() -> None:
    """(1, 1.2) points to (0, 3) more than to (2, 0), though the latter is nearer: direction decides."""
    out = by_hand([[2.0, 0.0], [0.0, 3.0]])(torch.tensor([[[1.0, 1.2], [1.0, 0.5]]]))
    assert out.codes.tolist() == [[[1], [0]]]
    torch.testing.assert_close(out.latents, torch.tensor([[[0.0, 3.0], [2.0, 0.0]]]))  # raw rows
    squares = [1.0, 1.8**2, 1.0, 0.5**2]
    torch.testing.assert_close(out.commitment_loss, torch.tensor(sum(squares) / 4))
    torch.testing.assert_close(out.codebook_loss, out.commitment_loss)


def test_second_codebook_takes_the_rest_by_hand() -> None:
    vq = by_hand([[2.0, 0.0], [0.0, 3.0]], [[-0.5, 0.0], [0.0, 0.25]])
    x = torch.tensor([[[1.0, 0.25]]] * 2)  # residual after (2, 0): (-1, 0.25), nearest (-0.5, 0)
    out = vq(x, torch.tensor([1, 2]))
    assert out.codes.tolist() == [[[0, 0]], [[0, 0]]]
    torch.testing.assert_close(out.latents, torch.tensor([[[2.0, 0.0]], [[1.5, 0.0]]]))
    first, second = [1.0, 0.25**2] * 2, [0.0, 0.0, 0.5**2, 0.25**2]  # sample 0 does not use the second
    torch.testing.assert_close(out.commitment_loss, torch.tensor(sum(first) / 4 + sum(second) / 4))


def test_ties_take_the_first_code() -> None:
    assert by_hand([[0.0, 1.0], [3.0, 0.0], [1.0, 0.0]])(torch.tensor([[[5.0, 0.0]]])).codes.item() == 1


def test_decode_is_the_forward_latents() -> None:
    vq, x = quantizer(), torch.randn(3, 7, 12)
    out = vq(x)
    torch.testing.assert_close(vq.decode(out.codes), out.latents)
    assert len(out.codes.unique()) > 8, "the codes say too little to test anything"


def test_depth_cuts_each_sample_on_its_own() -> None:
    vq, x = quantizer(), torch.randn(3, 7, 12)
    out = vq(x, torch.tensor([1, 5, 3]))
    assert torch.equal(out.codes, vq(x).codes)
    for i, depth in enumerate((1, 5, 3)):
        torch.testing.assert_close(out.latents[i], vq.decode(out.codes[i : i + 1, :, :depth])[0])


def test_losses_are_the_mean_of_those_of_the_samples() -> None:
    vq, x, depth = quantizer(), torch.randn(3, 7, 12), torch.tensor([1, 5, 3])
    out = vq(x, depth)
    single = [vq(x[i : i + 1], depth[i : i + 1]) for i in range(3)]
    for name in ("commitment_loss", "codebook_loss"):
        expected = torch.stack([getattr(each, name) for each in single]).mean()
        torch.testing.assert_close(getattr(out, name), expected)


def test_encode_gives_prefixes_of_the_full_encoding() -> None:
    vq, x = quantizer(), torch.randn(2, 9, 12)
    full = vq(x).codes
    for depth in range(1, 6):
        assert torch.equal(vq.encode(x, depth), full[..., :depth])


def test_decode_is_a_sum_of_raw_rows() -> None:
    """project_out(sum of (W row + b)), each W made of its direction and gain; row 0 is no silence."""
    vq = quantizer()
    codes = torch.tensor([[[3, 0, 15]]])
    total = torch.zeros(10)
    for layer, code in zip(vq.layers, codes[0, 0].tolist(), strict=False):
        total = total + weight(layer.project_out) @ layer.codebook.weight[code] + bias(layer.project_out)
    expected = weight(vq.project_out) @ total + bias(vq.project_out)
    torch.testing.assert_close(vq.decode(codes)[0, 0], expected)
    assert (vq.decode(torch.tensor([[[3, 0]]])) - vq.decode(codes[..., :1])).abs().max() > 1e-2


def weight(projection: nn.Module) -> Tensor:
    state = projection.state_dict()
    direction = F.normalize(state["parametrizations.weight.original1"], dim=1)
    return state["parametrizations.weight.original0"] * direction


def bias(projection: nn.Module) -> Tensor:
    return projection.state_dict()["bias"]


def test_gradient_passes_straight_through_the_choice() -> None:
    """The gradient of the latents is that of the same projections with no choice between them."""
    vq, x, probe = quantizer(), torch.randn(2, 4, 12, requires_grad=True), torch.randn(2, 4, 12)
    (vq(x).latents * probe).sum().backward()
    straight = x.detach().clone().requires_grad_()
    residual = vq.project_in(straight)
    total = torch.zeros_like(residual)
    for layer in vq.layers:
        out = layer.project_out(layer.project_in(residual))
        total, residual = total + out, residual - out
    (vq.project_out(total) * probe).sum().backward()
    torch.testing.assert_close(x.grad, straight.grad)
    assert all(layer.codebook.weight.grad is None for layer in vq.layers)


def test_each_loss_moves_its_own_side() -> None:
    vq, x = quantizer(), torch.randn(2, 4, 12)
    first = vq.layers[0]
    vq(x).commitment_loss.backward()
    assert first.codebook.weight.grad is None and gradient(first.project_in) > 0
    vq.zero_grad()
    vq(x, torch.tensor([1, 1])).codebook_loss.backward()
    assert gradient(first.codebook) > 0 and gradient(first.project_in) == 0


def gradient(module: nn.Module) -> float:
    grads = [p.grad.abs().max().item() for p in module.parameters() if p.grad is not None]
    return max(grads, default=0.0)


@pytest.mark.parametrize("deepest", [1, 3])
def test_dropped_codebooks_get_no_gradient(deepest: int) -> None:
    vq = quantizer()
    out = vq(torch.randn(2, 4, 12), torch.tensor([1, deepest]))
    (out.latents.square().sum() + out.commitment_loss + out.codebook_loss).backward()
    assert [gradient(layer) > 0 for layer in vq.layers] == [k < deepest for k in range(5)]


def test_float32_whatever_autocast_says() -> None:
    vq, x = quantizer(), torch.randn(2, 9, 12)
    plain = vq(x)
    with torch.autocast("cpu", torch.bfloat16):
        cast = vq(x)
        assert torch.equal(vq.encode(x, 5), plain.codes)
        torch.testing.assert_close(vq.decode(plain.codes), plain.latents)
    torch.testing.assert_close(cast.latents, plain.latents, atol=0, rtol=0)
    assert cast.latents.dtype == torch.float32


def test_a_new_codebook_takes_out_of_the_residual_what_it_gives_back() -> None:
    """Of a residual, what project_out(project_in(x)) leaves is orthogonal to what it takes."""
    vq, x = (
        ResidualVQ(QuantizerConfig(num_codebooks=3, codebook_dim=4, dim=12), code_dim=12),
        torch.randn(5, 12),
    )
    taken = [layer.project_out(layer.project_in(x)) for layer in vq.layers]
    torch.testing.assert_close(sum(taken), x)  # three subspaces of four dimensions
    for part in taken:
        torch.testing.assert_close((part * (x - part)).sum(-1), torch.zeros(5), atol=1e-5, rtol=0)
