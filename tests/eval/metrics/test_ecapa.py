"""Parts of the ECAPA-TDNN head with values worked out by hand; the whole is tested with WavLM under it."""

import math

import torch

from eval.metrics.ecapa import AttentivePooling, ConvReluNorm, Ecapa, EcapaSizes, Res2Conv


@torch.no_grad()
def test_the_norm_comes_after_the_relu() -> None:
    layer = ConvReluNorm(1, 1).eval()
    layer.conv.weight.fill_(1)
    layer.conv.bias.zero_()  # pyright: ignore[reportOptionalMemberAccess]
    layer.bn.bias.fill_(-1)
    expected = torch.tensor([-1.0, 2 / math.sqrt(1 + 1e-5) - 1])
    torch.testing.assert_close(layer(torch.tensor([[[-3.0, 2.0]]]))[0, 0], expected)


@torch.no_grad()
def test_the_deviation_of_what_never_changes_is_the_root_of_the_clamp() -> None:
    pooling = AttentivePooling(2, 3)
    pooled = pooling(torch.zeros(1, 2, 5))[0]
    torch.testing.assert_close(pooled, torch.tensor([0, 0, math.sqrt(1e-9), math.sqrt(1e-9)]))


@torch.no_grad()
def test_pooling_without_attention_is_mean_and_deviation() -> None:
    pooling = AttentivePooling(1, 3)
    pooling.linear2.weight.zero_()
    pooled = pooling(torch.tensor([[[1.0, 2.0, 3.0, 6.0]]]))[0]
    torch.testing.assert_close(pooled, torch.tensor([3.0, math.sqrt(3.5)]))


def test_a_group_sees_the_groups_before_it_and_the_last_passes() -> None:
    res2 = Res2Conv(8, dilation=2).eval()
    x = torch.randn(1, 8, 9, requires_grad=True)
    out = res2(x)
    assert torch.equal(out[:, 7], x[:, 7])
    torch.manual_seed(3)
    for conv in res2.convs:
        torch.nn.init.constant_(conv.weight, 1.0)
        torch.nn.init.constant_(conv.bias, 5.0)  # pyright: ignore[reportArgumentType]
    (gradient,) = torch.autograd.grad(res2(x)[0, 1, 4], x)
    reached = gradient[0].ne(0)
    assert reached[1].nonzero().flatten().tolist() == [2, 4, 6]  # one convolution
    assert reached[0].nonzero().flatten().tolist() == [0, 2, 4, 6, 8]  # two
    assert not reached[2:].any()


@torch.inference_mode()
def test_a_batch_is_its_items() -> None:
    head = Ecapa(EcapaSizes(features=6, channels=8, pooled=10, bottleneck=3, attention=4, embedding=5)).eval()
    features = torch.randn(3, 20, 6)
    single = torch.cat([head(item[None]) for item in features])
    torch.testing.assert_close(head(features), single)
