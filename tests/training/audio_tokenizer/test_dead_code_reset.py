import pytest
import torch
from accelerate import Accelerator

from tokenizer.config import QuantizerConfig
from tokenizer.layers.quantizer import ResidualVQ
from training.audio_tokenizer.dead_code_reset import (
    DEAD_THRESHOLD,
    RESET_INTERVAL,
    RESET_SHARE,
    USAGE_DECAY,
    DeadCodeReset,
)

CONFIG = QuantizerConfig(num_codebooks=2, codebook_size=8, codebook_dim=2, dim=4)


@pytest.fixture
def vq() -> ResidualVQ:
    torch.manual_seed(0)
    return ResidualVQ(CONFIG, code_dim=4)


def made(vq: ResidualVQ, seed: int = 0) -> DeadCodeReset:
    return DeadCodeReset(vq, Accelerator(cpu=True), seed)


def rows(vq: ResidualVQ) -> torch.Tensor:
    return torch.stack([layer.codebook.weight.detach().clone() for layer in vq.layers])


def test_shares_are_counted_by_hand(vq: ResidualVQ) -> None:
    dead_code_reset = made(vq)
    codes = torch.tensor([[[0, 7]], [[0, 3]]])
    dead_code_reset.update(1, codes, torch.zeros(2, 1, 2, 2))
    wanted = torch.full((2, 8), USAGE_DECAY)  # of an even share; what was chosen takes all of the rest
    wanted[0, 0] += (1 - USAGE_DECAY) * 8
    wanted[1, [3, 7]] += (1 - USAGE_DECAY) * 4
    torch.testing.assert_close(dead_code_reset.shares, wanted)


def test_unused_rows_move_to_what_was_quantised(vq: ResidualVQ) -> None:
    dead_code_reset, before = made(vq), rows(vq)
    dead_code_reset.shares[0, [2, 5]] = 0.01
    low = torch.arange(24.0).view(6, 1, 2, 2) + 100
    codes = torch.tensor([0, 1, 3, 4, 6, 7])[:, None, None].expand(6, 1, 2)
    dead_code_reset.update(RESET_INTERVAL, codes, low)
    after = rows(vq)
    moved = (after != before).any(-1)
    assert moved[0].nonzero().flatten().tolist() == [2, 5] and not moved[1].any()
    taken = [row.tolist() for row in after[0, [2, 5]]]
    assert all(row in low[:, 0, 0].tolist() for row in taken) and taken[0] != taken[1]
    assert dead_code_reset.shares[0, [2, 5]].tolist() == pytest.approx([RESET_SHARE] * 2)


def test_no_more_move_at_once_than_half_of_what_there_is(vq: ResidualVQ) -> None:
    dead_code_reset, before = made(vq), rows(vq)
    dead_code_reset.shares.fill_(DEAD_THRESHOLD / 2)
    dead_code_reset.update(RESET_INTERVAL, torch.zeros(4, 1, 2, dtype=torch.long), torch.randn(4, 1, 2, 2))
    assert (rows(vq) != before).any(-1).sum(1).tolist() == [2, 2]


def test_between_two_resets_nothing_moves(vq: ResidualVQ) -> None:
    dead_code_reset, before = made(vq), rows(vq)
    dead_code_reset.shares.fill_(0.0)
    dead_code_reset.update(
        RESET_INTERVAL + 1, torch.zeros(4, 1, 2, dtype=torch.long), torch.randn(4, 1, 2, 2)
    )
    assert torch.equal(rows(vq), before)


def test_what_moves_depends_on_seed_and_step_alone(vq: ResidualVQ) -> None:
    first, low = rows(vq), torch.randn(6, 1, 2, 2)
    found = []
    for seed in (0, 0, 1):
        with torch.no_grad():
            for layer, table in zip(vq.layers, first, strict=True):
                layer.codebook.weight.copy_(table)
        dead_code_reset = made(vq, seed)
        dead_code_reset.load_state_dict({"shares": torch.zeros(2, 8)})
        dead_code_reset.update(RESET_INTERVAL, torch.zeros(6, 1, 2, dtype=torch.long), low)
        found.append(rows(vq))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
