import math

import pytest
import torch
from torch import Tensor

from tokenizer.layers.attention import (
    attend,
    build_mask,
    frequencies,
    rotary_factors,
    rotate,
    rotate_projected,
    window_mask,
)

CPU = torch.device("cpu")


def heads(batch: int, count: int, steps: int, dim: int = 6, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(batch, count, steps, dim, dtype=dtype)


def naive(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Softmax attention, one query at a time; the last query stands at the last key."""
    share, history = q.shape[1] // k.shape[1], k.shape[2] - q.shape[2]
    k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
    out = torch.empty_like(q)
    for i in range(q.shape[2]):
        reach = slice(max(0, history + i - window + 1), history + i + 1)
        scores = (k[:, :, reach] @ q[:, :, i, :, None]).squeeze(-1) / math.sqrt(q.shape[-1])
        out[:, :, i] = (scores.softmax(-1)[..., None] * v[:, :, reach]).sum(2)
    return out


def test_window_mask_by_hand() -> None:
    assert window_mask(2, 4, 2, CPU).int().tolist() == [[0, 1, 1, 0], [0, 0, 1, 1]]
    assert window_mask(3, 3, 1, CPU).int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert window_mask(3, 3, 9, CPU).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert window_mask(1, 4, 3, CPU).int().tolist() == [[0, 1, 1, 1]]


@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize(
    ("queries", "keys", "window"),
    [
        (5, 5, 9),  # all in the window
        (5, 5, 5),
        (6, 6, 5),  # the first key falls out
        (5, 5, 1),  # nothing but the present
        (150, 150, 7),  # blocks longer than the window
        (150, 150, 70),  # blocks as long as the window
        (128, 128, 64),  # whole blocks
        (1, 8, 8),  # one streamed step, window just filled
        (1, 3, 8),
        (1, 12, 8),  # more keys than the window has
        (4, 11, 8),  # a chunk behind a full cache
        (4, 6, 8),  # a chunk behind a cache that is not yet full
        (100, 104, 5),  # a chunk longer than the window, and than a block
    ],
)
def test_attend_equals_naive_softmax(queries: int, keys: int, window: int, groups: int) -> None:
    q, k, v = heads(2, 4, queries), heads(2, groups, keys), heads(2, groups, keys)
    torch.testing.assert_close(attend(q, k, v, window), naive(q, k, v, window))


@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize(("steps", "window"), [(9, 20), (9, 4), (40, 60), (200, 300), (200, 70)])
def test_training_in_bfloat16_attends_alike(steps: int, window: int, groups: int) -> None:
    """Short and long sequences, whole and windowed: results and gradients, to bfloat16's precision."""
    inputs = [heads(2, count, steps, dtype=torch.float32) for count in (4, groups, groups)]
    q, k, v = (part.clone().requires_grad_() for part in inputs)
    low_q, low_k, low_v = (part.clone().requires_grad_() for part in inputs)
    wanted, push = naive(q, k, v, window), heads(2, 4, steps, dtype=torch.float32)
    mask = build_mask(steps, steps, window, inputs[0])
    with torch.autocast("cpu", torch.bfloat16):
        low = attend(low_q, low_k, low_v, window, mask)
    torch.testing.assert_close(low.float(), wanted, rtol=0.03, atol=0.03)
    (wanted * push).sum().backward()
    (low * push).sum().backward()
    for approximate, plain in ((low_q, q), (low_k, k), (low_v, v)):
        torch.testing.assert_close(approximate.grad, plain.grad, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("query", [0, 3, 66, 99])
def test_attend_reads_only_the_window(query: int) -> None:
    """Read off the gradient; query 66 lies in the second block of queries."""
    q, k, v = heads(1, 2, 100), heads(1, 2, 100).requires_grad_(), heads(1, 2, 100).requires_grad_()
    (attend(q, k, v, window=4)[:, :, query] * heads(1, 2, 1)[:, :, 0]).sum().backward()
    for leaf in (k, v):
        assert leaf.grad is not None
        reached = leaf.grad.abs().sum((0, 1, 3)).nonzero().flatten().tolist()
        if query or leaf is v:  # the softmax of a single score has no slope
            assert reached == list(range(max(0, query - 3), query + 1))


@pytest.mark.parametrize(("queries", "history"), [(1, 9), (3, 4), (70, 9), (150, 9)])
def test_padded_keys_are_not_read(queries: int, history: int) -> None:
    """Signal 0 attends to all of its history, 1 to the last two steps, 2 to none; so in all blocks."""
    keys = history + queries
    q, k, v = heads(3, 2, queries), heads(3, 2, keys), heads(3, 2, keys)
    first = torch.tensor([0, history - 2, history])
    mask = build_mask(queries, keys, 10, q, padding_mask=torch.arange(keys) < first[:, None])
    batched = attend(q, k, v, 10, mask)
    for i, begin in enumerate(first.tolist()):
        single = slice(i, i + 1)
        torch.testing.assert_close(
            batched[single], naive(q[single], k[single, :, begin:], v[single, :, begin:], 10)
        )


def test_rotate_by_hand() -> None:
    """Neighbouring features are a plane: pair 0 rotates by 1 radian a step, pair 1 by period ** -1/2."""
    x = torch.tensor([1.0, 0.0, 0.0, 2.0]).expand(1, 1, 3, 4)
    rotated = rotate(x, rotary_factors(5, 3, frequencies(4, 100.0, CPU)))
    for step, position in enumerate((5, 6, 7)):
        fast, slow = position * 1.0, position * 0.1
        expected = [math.cos(fast), math.sin(fast), -2 * math.sin(slow), 2 * math.cos(slow)]
        torch.testing.assert_close(rotated[0, 0, step], torch.tensor(expected))


def test_rotation_at_position_zero_is_none() -> None:
    x = torch.randn(2, 3, 1, 8)
    torch.testing.assert_close(
        rotate(x, rotary_factors(0, 1, frequencies(8, 10_000.0, CPU))), x, atol=0, rtol=0
    )


def test_table_continues_where_a_stream_stands() -> None:
    whole = rotary_factors(0, 2000, frequencies(8, 10_000.0, CPU))
    assert torch.equal(rotary_factors(1990, 10, frequencies(8, 10_000.0, CPU)), whole[1990:])


def test_scores_depend_on_distance_alone() -> None:
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def score(at: int, back: int) -> Tensor:
        tables = (rotary_factors(first, 1, frequencies(16, 10_000.0, CPU)) for first in (at, at - back))
        rotated_q, rotated_k = (rotate(x, table) for x, table in zip((q, k), tables, strict=True))
        return (rotated_q * rotated_k).sum()

    for back in (0, 1, 9):
        torch.testing.assert_close(score(9, back), score(500, back), atol=1e-4, rtol=1e-4)
    assert (score(9, 1) - score(9, 2)).abs() > 1e-2, "distance makes no difference"


def test_projected_values_are_not_rotated_and_gradients_change_nothing() -> None:
    qkv, table = (
        torch.randn(2, 5, 3, 2, 8),
        rotary_factors(7, 5, frequencies(8, 10_000.0, CPU))[:, None, None],
    )
    leaf = qkv.clone().requires_grad_()
    rotated = rotate_projected(leaf, table)
    assert torch.equal(rotated[:, :, :2], rotate(qkv[:, :, :2], table))
    assert torch.equal(rotated[:, :, 2], qkv[:, :, 2])
    rotated.sum().backward()
    expected = torch.cat([rotate(torch.ones(2, 5, 2, 2, 8), table.conj()), torch.ones(2, 5, 1, 2, 8)], 2)
    torch.testing.assert_close(leaf.grad, expected)
    assert rotate_projected(qkv, table) is qkv, "without a gradient it is done in place"
    torch.testing.assert_close(qkv, rotated.detach(), atol=1e-7, rtol=1e-6)


def test_rotation_of_half_precision_is_computed_in_float32() -> None:
    x, table = torch.randn(1, 1, 5, 8).bfloat16(), rotary_factors(995, 5, frequencies(8, 10_000.0, CPU))
    rotated = rotate(x, table)
    assert rotated.dtype == torch.bfloat16
    assert torch.equal(rotated, rotate(x.float(), table).bfloat16())


@pytest.mark.gpu
@pytest.mark.parametrize("window", [7, 70, 500])
def test_cuda_half_precision_equals_naive(window: int) -> None:
    """With flash-attn installed this is FlashAttention, without it SDPA: one signature, one meaning."""
    q, k, v = (heads(2, 4, 300, 64, torch.float32).bfloat16() for _ in range(3))
    for queries in (300, 1, 20):
        out = attend(q[:, :, -queries:].cuda(), k.cuda(), v.cuda(), window).cpu().float()
        expected = naive(q[:, :, -queries:].float(), k.float(), v.float(), window)
        torch.testing.assert_close(out, expected, atol=2e-2, rtol=2e-2)
