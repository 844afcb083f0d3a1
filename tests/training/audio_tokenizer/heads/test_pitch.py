import pytest
import torch

from tokenizer.config import tiny
from training.audio_tokenizer.heads.pitch import PitchHead, pitch_loss
from training.data.pitch_tracking import Pitch


def test_the_loss_is_a_mean_over_what_is_sure() -> None:
    wanted = Pitch(torch.tensor([[0.0, 1.0, 5.0]]), torch.tensor([[1.0, 0.5, 0.0]]))
    loss = pitch_loss(torch.tensor([[0.5, 0.0, 0.0]]), wanted)
    assert float(loss) == pytest.approx((0.5 * 1 + 1.0 * 0.5) / 1.5)
    assert float(pitch_loss(torch.ones(1, 3), Pitch(torch.zeros(1, 3), torch.zeros(1, 3)))) == 0


def test_the_head_gives_eight_values_a_frame_and_looks_back_only() -> None:
    torch.manual_seed(0)
    head = PitchHead(tiny())
    torch.nn.init.normal_(head.out.weight)
    latents = torch.randn(2, 6, 24, requires_grad=True)
    octaves = head(latents)
    assert octaves.shape == (2, 48)
    octaves[0, 24:32].sum().backward()  # frame 3
    assert latents.grad is not None
    assert [bool(g.abs().max() > 0) for g in latents.grad[0]] == [False, True, True, True, False, False]
    assert latents.grad[1].abs().max() == 0
