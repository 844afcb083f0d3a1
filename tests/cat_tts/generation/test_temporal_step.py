import pytest
import torch
from torch import Tensor

from cat_tts.config import tiny
from cat_tts.generation.temporal_step import TemporalStep
from cat_tts.model.tts import CatTTS


@pytest.fixture
def model() -> CatTTS:
    """Large weights, and gains that differ from 1 and from each other."""
    model = CatTTS(tiny()).eval()
    with torch.no_grad():
        for parameter in model.temporal.parameters():
            parameter.normal_(std=0.3) if parameter.dim() > 1 else parameter.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize("lengths", [[9], [4, 4], [7, 1, 300, 4]])
@torch.inference_mode()
def test_equals_qwen3(model: CatTTS, lengths: list[int]) -> None:
    """States of new rows, at positions of their own, behind prompts that differ in length."""
    step, config, new = TemporalStep(model, len(lengths)), model.config, 5
    whole, places, states = [], [], []
    for i, length in enumerate(lengths):
        rows = torch.randint(config.codebook_size, (length, 1 + config.num_codebooks))
        place = torch.rand(length + new).mul(20).cumsum(0)
        states.append(step.prefill(i, rows, place[:length], 3))
        whole.append(torch.cat([model.embed(rows[None], 3)[0], torch.randn(new, config.temporal.dim)]))
        places.append(place)
    expected = [model.states(x[None], positions=at[None])[0] for x, at in zip(whole, places, strict=True)]
    close(torch.stack(states), torch.stack([x[n - 1] for x, n in zip(expected, lengths, strict=True)]))
    for t in range(new):
        now = [length + t for length in lengths]
        step.reserve(max(now) + 1)
        made = step(pick(whole, now), pick(places, now), now)
        close(made, pick(expected, now))
    assert max(x.abs().max() for x in expected) > 1


@torch.inference_mode()
def test_a_moved_sequence_continues(model: CatTTS) -> None:
    step, rows = TemporalStep(model, 2), torch.randint(model.config.codebook_size, (2, 6, 7))
    step.prefill(0, rows[0], None, 6)
    step.prefill(1, rows[1], None, 6)
    x, place = torch.randn(1, model.config.temporal.dim).expand(2, -1), torch.tensor([6.0, 6.0])
    both = step(x, place, [6, 6])
    step.move(1, 0)
    close(step(x[:1], place[:1], [6]), both[1:])
    assert (both[0] - both[1]).abs().max() > 0.1


def pick(rows: list[Tensor], at: list[int]) -> Tensor:
    return torch.stack([x[i] for x, i in zip(rows, at, strict=True)])


def close(mine: Tensor, reference: Tensor) -> None:
    torch.testing.assert_close(mine, reference, atol=2e-5, rtol=1e-5)
