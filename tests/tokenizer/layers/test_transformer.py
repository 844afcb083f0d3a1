from dataclasses import replace

import pytest
import torch
from torch import nn

from tokenizer.config import StageConfig
from tokenizer.layers.transformer import Stage, fold, unfold

CONFIG = StageConfig(patch_size=1, input_dim=6, dim=16, output_dim=10, num_layers=2, num_heads=2, ffn_dim=32)


def stage(window: int, config: StageConfig = CONFIG) -> Stage:
    """A stage whose norms and gains are off their initial values, so that misplaced ones would show."""
    built = Stage(config, window, rope_period=10_000.0, layer_scale=0.5)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built


def test_fold_by_hand() -> None:
    """Feature c of step i of a patch goes to c * patch + i."""
    x = torch.arange(8.0).view(1, 4, 2)  # steps (0 1), (2 3), (4 5), (6 7)
    assert fold(x, 2).tolist() == [[[0, 2, 1, 3], [4, 6, 5, 7]]]
    assert fold(x, 4).tolist() == [[[0, 2, 4, 6, 1, 3, 5, 7]]]


def test_unfold_by_hand() -> None:
    x = torch.tensor([[[0.0, 2.0, 1.0, 3.0], [4.0, 6.0, 5.0, 7.0]]])
    assert unfold(x, 2).tolist() == [[[0, 1], [2, 3], [4, 5], [6, 7]]]


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_unfold_is_the_inverse_of_fold(patch: int) -> None:
    x = torch.randn(2, 6, 5)
    assert torch.equal(unfold(fold(x, patch), patch), x)


def test_fold_of_samples_is_a_reshape() -> None:
    samples = torch.arange(480.0)
    assert torch.equal(fold(samples[None, :, None], 240)[0], samples.view(2, 240))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("step", [0, 2, 11])
def test_reads_no_future_and_only_the_windows(layers: int, step: int) -> None:
    """Read off the input gradient: each layer of window 4 reaches 3 steps further back."""
    x = torch.randn(1, 12, 6, requires_grad=True)
    out = stage(4, replace(CONFIG, num_layers=layers))(x)
    (out[:, step] * torch.randn(10)).sum().backward()
    assert x.grad is not None
    reached = x.grad[0].abs().sum(-1).nonzero().flatten().tolist()
    assert reached == list(range(max(0, step - 3 * layers), step + 1))


@pytest.mark.parametrize("chunks", [[15], [1] * 15, [4, 1, 7, 3]])
def test_stream_equals_offline(chunks: list[int]) -> None:
    model, x = stage(4), torch.randn(2, 15, 6)
    cache = model.cache(2)
    parts = [model(chunk, cache) for chunk in x.split(chunks, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), model(x))


def test_positions_matter_only_relative_to_one_another() -> None:
    """A stream that has run for long computes what a fresh one does, once the window has passed."""
    model, x = stage(4), torch.randn(1, 8, 6)
    late = torch.cat([torch.randn(1, 400, 6), x], 1)
    torch.testing.assert_close(model(late)[:, -1], model(x)[:, -1], atol=1e-4, rtol=1e-4)


def test_order_matters() -> None:
    model, x = stage(9), torch.randn(1, 5, 6)
    swapped = x[:, [1, 0, 2, 3, 4]]
    assert (model(x)[:, -1] - model(swapped)[:, -1]).abs().max() > 1e-3


def test_layer_by_hand() -> None:
    """With one step there is nothing to choose from: attention returns that step's own value."""
    model, x = stage(4, replace(CONFIG, num_layers=1)), torch.randn(2, 1, 6)
    layer, h = model.layers[0], model.project_in(x)
    value = layer.qkv.weight[32:] @ layer.attention_norm(h)[..., None]  # rows: queries, keys, values
    h = h + layer.attention_scale * (layer.attention_out.weight @ value).squeeze(-1)
    wide = layer.ffn_in(layer.ffn_norm(h))
    wide = wide * 0.5 * (1 + torch.erf(wide / 2**0.5))
    h = h + layer.ffn_scale * layer.ffn_out(wide)
    torch.testing.assert_close(model(x), model.project_out(h))


def test_projections_only_where_widths_differ() -> None:
    both = Stage(CONFIG, 4, 10_000.0, 0.1)
    none = Stage(replace(CONFIG, input_dim=16, output_dim=16), 4, 10_000.0, 0.1)
    assert isinstance(both.project_in, nn.Linear) and isinstance(both.project_out, nn.Linear)
    assert both.project_in.bias is None and both.project_out.bias is None
    assert not any(name.startswith("project") for name in none.state_dict())


def test_layers_begin_near_the_identity() -> None:
    model = Stage(replace(CONFIG, input_dim=16, output_dim=16), 4, 10_000.0, layer_scale=0.0)
    x = torch.randn(1, 7, 16)
    assert torch.equal(model(x), x)
