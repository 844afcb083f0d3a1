import pytest
import torch

import cat_tts.muon
from cat_tts.muon import Muon, orthogonalize


@pytest.fixture(params=[True, False])
def slow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether bfloat16 is slow."""
    monkeypatch.setattr(cat_tts.muon, "_slow_in_bfloat16", lambda device: request.param)
    return request.param


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (16, 16)])
def test_singular_values_come_near_to_one(slow: bool, shape: tuple[int, int]) -> None:
    result = orthogonalize(torch.randn(shape))
    assert result.dtype == (torch.float32 if slow else torch.bfloat16) and result.shape == shape
    values = torch.linalg.svdvals(result.float())
    assert float(values.min()) > 0.5 and float(values.max()) < 1.3


def test_singular_vectors_stay() -> None:
    matrix = torch.randn(8, 24, dtype=torch.float32)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    rotated = u.T @ orthogonalize(matrix).float() @ v.T
    assert (rotated - rotated.diag().diag()).abs().max() < 0.05
    assert orthogonalize(torch.zeros(3, 4)).abs().max() == 0


@pytest.mark.parametrize("momentum", [0.95, 0.9])
def test_steps_are_those_of_torch(slow: bool, momentum: float) -> None:
    weights = [torch.nn.Parameter(torch.randn(12, 20)) for _ in range(2)]
    theirs = [torch.nn.Parameter(weight.detach().clone()) for weight in weights]
    ours = Muon(weights, 1e-2, 0.1, momentum)
    other = torch.optim.Muon(theirs, 1e-2, 0.1, momentum=momentum, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for mine, its in zip(weights, theirs, strict=True):
            mine.grad = torch.randn(12, 20)
            its.grad = mine.grad.clone()
        ours.step()
        other.step()
    for mine, its in zip(weights, theirs, strict=True):
        torch.testing.assert_close(mine, its, atol=2e-3 if slow else 1e-6, rtol=0)


def test_only_matrices_are_taken() -> None:
    with pytest.raises(ValueError, match="Muon changes matrices alone"):
        Muon([torch.nn.Parameter(torch.zeros(3))], 1e-2, 0.0)
    weight = torch.nn.Parameter(torch.ones(2, 2))
    Muon([weight], 1e-2, 0.5).step()  # no gradient, no step
    assert torch.equal(weight, torch.ones(2, 2))
