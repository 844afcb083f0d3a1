import torch
from torch import nn

from training.tts.cost import count_saved


def test_what_is_saved_by_hand() -> None:
    """The input of each layer whose weight is trained, the result of the ReLU, and no weight."""
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 2, bias=False))
    with count_saved(model) as found:
        model(torch.randn(3, 4)).sum().backward()
    assert sorted(found.values()) == [4 * 3 * 4, 4 * 3 * 8]


def test_a_view_is_its_storage_and_counts_once() -> None:
    x = torch.randn(10, 5, requires_grad=True)
    with count_saved(nn.Identity()) as found:
        y = x.exp()
        (y[:2].square().sum() + y[2:].square().sum()).backward()
    assert list(found.values()) == [4 * 10 * 5]


def test_frozen_layers_save_less() -> None:
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.Linear(8, 2, bias=False))
    model[1].requires_grad_(False)
    with count_saved(model) as found:
        model(torch.randn(3, 4)).sum().backward()
    assert list(found.values()) == [4 * 3 * 4]
