import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cat_tts.generation import sampling
from cat_tts.generation.sampling import BatchedSamplingParams, SamplingOptions, gumbel_noise, sample
from tests.helpers.paths import GOLDEN

TTS_LOCAL = GOLDEN / "tts_local_small"
INPUTS, EXPECTED = load_file(TTS_LOCAL / "inputs.safetensors"), load_file(TTS_LOCAL / "expected.safetensors")
OFF = SamplingOptions(top_k=0, top_p=1.0)


def filtered_logits(logits: Tensor, options: SamplingOptions, history: Tensor | None = None) -> Tensor:
    """Filter logits with shared options; history entries outside the vocabulary are ignored."""
    size = logits.shape[1]
    used_codes = torch.zeros(len(logits), size, dtype=torch.bool)
    for row, codes in zip(used_codes, [] if history is None else history, strict=history is not None):
        row[codes[(codes >= 0) & (codes < size)]] = True
    return sampling.filtered_logits(
        logits, BatchedSamplingParams.from_options([options] * len(logits), size, logits.device), used_codes
    )


def chi_square_z(counts: Tensor, expected: Tensor) -> float:
    """How many standard deviations the chi-square statistic lies above its mean."""
    freedom = len(counts) - 1
    return ((counts - expected).square().div(expected).sum().item() - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("default", SamplingOptions(repetition_penalty=1.1, temperature=1.0, top_k=50, top_p=0.95)),
        ("tight", SamplingOptions(repetition_penalty=1.3, temperature=0.7, top_k=10, top_p=0.8)),
    ],
)
def test_filter_equals_published(key: str, options: SamplingOptions) -> None:
    filtered = filtered_logits(INPUTS["sampler.logits"], options, INPUTS["sampler.history"])
    torch.testing.assert_close(filtered.softmax(-1), EXPECTED[f"sampler.{key}"], atol=1e-6, rtol=0)


def test_filter_by_hand() -> None:
    logits = torch.tensor([[2.0, -1.0, 1.0, 0.0]])
    inf = math.inf
    penalised = filtered_logits(
        logits, SamplingOptions(top_k=0, top_p=1.0, repetition_penalty=2.0), torch.tensor([[0, 0, 1, -1, 9]])
    )
    assert penalised.tolist() == [[1.0, -2.0, 1.0, 0.0]]
    assert filtered_logits(logits, SamplingOptions(top_k=2, top_p=1.0, temperature=0.5)).tolist() == [
        [4, -inf, 2, -inf]
    ]
    probabilities = torch.tensor([[0.5, 0.1, 0.15, 0.25]])  # ascending sums 0.1, 0.25, 0.5, 1
    for top_p, kept in ((0.76, 3), (0.74, 2), (0.001, 1), (1.0, 4)):
        finite = filtered_logits(probabilities.log(), SamplingOptions(top_k=0, top_p=top_p)).isfinite()
        assert finite.sum() == kept, top_p


def test_temperature_zero_is_the_plain_argmax() -> None:
    logits, history = INPUTS["sampler.logits"], INPUTS["sampler.history"]
    greedy = SamplingOptions(temperature=0.0, repetition_penalty=100.0)
    filtered = filtered_logits(logits, greedy, history)
    noise = gumbel_noise(torch.arange(len(logits)), 0, 1, logits.shape[1])[:, 0]
    assert torch.equal(sample(filtered, noise), logits.argmax(-1))
    assert (filtered.softmax(-1).amax(-1) == 1).all()


def test_decision_has_its_own_temperature_and_no_penalty() -> None:
    options = SamplingOptions(top_k=1, repetition_penalty=1.5, decision_temperature=1.5, guidance=2.0)
    assert options.decision() == SamplingOptions(
        temperature=1.5, top_k=50, top_p=1.0, decision_temperature=1.5
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1.0),
        ("decision_temperature", math.nan),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("repetition_penalty", 0.0),
        ("guidance", 0.5),
        ("temperature", "1"),
        ("temperature", None),
        ("top_k", 2.5),
        ("top_k", True),
        ("top_p", torch.tensor([0.5])),
    ],
)
def test_options_are_checked(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{field}={value!r}: give")):
        SamplingOptions(**{field: value})


def test_numbers_of_other_libraries_are_read() -> None:
    options = SamplingOptions(temperature=np.float32(0.5), top_k=np.int64(3), top_p=1)  # pyright: ignore[reportArgumentType]
    assert options == SamplingOptions(temperature=0.5, top_k=3, top_p=1.0)
    assert [type(value) for value in (options.temperature, options.top_k)] == [float, int]


def test_noise_depends_on_its_place_alone() -> None:
    seeds = torch.tensor([0, 5, -1, 2**62 + 5])
    noise = gumbel_noise(seeds, 7, 9, 65)
    assert noise.shape == (4, 9, 65) and noise.dtype == torch.float32 and noise.isfinite().all()
    assert torch.equal(noise, gumbel_noise(seeds, 7, 9, 65))
    assert torch.equal(noise[2:3, :4, :10], gumbel_noise(seeds[2:3], 7, 4, 10))
    frames = torch.tensor([7, 3, 7, 3])
    assert torch.equal(
        gumbel_noise(seeds, frames, 9, 65),
        torch.where((frames == 7)[:, None, None], noise, gumbel_noise(seeds, 3, 9, 65)),
    )


def test_known_values() -> None:
    """Seeds give what they always gave: a change of these numbers changes every published sample."""
    noise = gumbel_noise(torch.tensor([1234]), 56, 2, 3)
    expected = torch.tensor([[[-0.35186952, 1.26056445, 0.82414657], [1.26017082, -0.58299690, 3.62484336]]])
    torch.testing.assert_close(noise, expected)


def test_neighbouring_keys_share_nothing() -> None:
    seeds = torch.cat([torch.arange(-4, 4), torch.arange(1, 5) << 32])
    blocks = torch.stack([gumbel_noise(seeds, frame, 8, 64) for frame in range(8)]).flatten(0, 2)
    equal = (blocks[:, None] == blocks[None]).float().mean(-1).fill_diagonal_(0)
    assert equal.max() < 0.05, "two keys drew the same noise"
    values = blocks.sort(-1).values
    assert (values[:, None] == values[None]).all(-1).sum() == len(blocks), (
        "two keys drew the same noise reordered"
    )
    correlation = torch.corrcoef(blocks).fill_diagonal_(0)
    assert correlation.abs().max() < 5.5 / math.sqrt(64)


@pytest.mark.parametrize("axis", ["seed", "frame", "layer", "index"])
def test_noise_is_uniform_along_every_axis(axis: str) -> None:
    many = 50_000
    noise = {
        "seed": lambda: gumbel_noise(torch.arange(many), 3, 1, 1),
        "frame": lambda: gumbel_noise(torch.zeros(many, dtype=torch.long), torch.arange(many), 1, 1),
        "layer": lambda: gumbel_noise(torch.tensor([11]), 3, many, 1),
        "index": lambda: gumbel_noise(torch.tensor([11]), 3, 1, many),
    }[axis]().flatten()
    uniform = (-(-noise).exp()).exp()
    assert uniform.min() > 0 and uniform.max() < 1
    single = torch.histc(uniform, 100, 0, 1)
    assert abs(chi_square_z(single, torch.full_like(single, many / 100))) < 4
    pairs = torch.stack([uniform[:-1], uniform[1:]]).mul(10).long().clamp(max=9)
    joint = torch.bincount(pairs[0] * 10 + pairs[1], minlength=100).float()
    assert abs(chi_square_z(joint, torch.full_like(joint, (many - 1) / 100))) < 4


@pytest.mark.parametrize("options", [OFF, SamplingOptions(temperature=0.8, top_k=6, top_p=0.9)])
def test_choices_follow_the_softmax(options: SamplingOptions) -> None:
    draws = 20_000
    filtered = filtered_logits(torch.tensor([[1.0, 0.5, 0.0, -0.5, 2.0, 1.5, -1.0, 0.8]]), options)
    noise = gumbel_noise(torch.arange(draws) // 100, torch.arange(draws) % 100, 3, filtered.shape[1])[:, 2]
    counts = torch.bincount(sample(filtered.expand(draws, -1), noise), minlength=filtered.shape[1]).float()
    kept = filtered[0].isfinite()
    assert counts[~kept].sum() == 0
    assert abs(chi_square_z(counts[kept], draws * filtered[0].softmax(-1)[kept])) < 4


@pytest.mark.gpu
def test_same_on_cuda() -> None:
    seeds, frames = torch.tensor([3, -9]), torch.tensor([4, 70_000])
    cpu, cuda = (
        gumbel_noise(seeds, frames, 33, 1025),
        gumbel_noise(seeds.cuda(), frames.cuda(), 33, 1025).cpu(),
    )
    torch.testing.assert_close(cuda, cpu, atol=1e-5, rtol=1e-5)
