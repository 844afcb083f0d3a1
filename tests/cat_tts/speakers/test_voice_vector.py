from pathlib import Path

import pytest
import torch

from cat_tts.speakers.voice_vector import (
    VoiceVectorBlock,
    VoiceVectorConfig,
    VoiceVectorEncoder,
    _moments,
    mini,
    tiny,
)


@pytest.fixture
def encoder() -> VoiceVectorEncoder:
    torch.manual_seed(0)
    return VoiceVectorEncoder(tiny()).eval()


def codes(clips: int, frames: int, codebooks: int = 6) -> torch.Tensor:
    return torch.randint(32, (clips, frames, codebooks), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_vectors_have_length_one(encoder: VoiceVectorEncoder) -> None:
    vectors = encoder(codes(3, 20))
    assert vectors.shape == (3, 8)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


@torch.no_grad()
def test_padding_and_the_other_clips_change_nothing(encoder: VoiceVectorEncoder) -> None:
    padded, frames = codes(3, 20), torch.tensor([20, 7, 1])
    batched = encoder(padded, frames)
    for row, count, vector in zip(padded, frames.tolist(), batched, strict=True):
        torch.testing.assert_close(encoder(row[None, :count])[0], vector, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_lower_depth_reads_the_first_codebooks_only(encoder: VoiceVectorEncoder) -> None:
    full, depth = codes(2, 20), torch.tensor([2, 6])
    changed = full.clone()
    changed[:, :, 2:] = 0
    at_depth, of_changed = encoder(full, None, depth), encoder(changed, None, depth)
    torch.testing.assert_close(at_depth[0], of_changed[0])
    assert (at_depth[1] - of_changed[1]).abs().max() > 1e-3
    torch.testing.assert_close(encoder(full[..., :2])[0], at_depth[0])
    deeper = torch.cat([full, full], -1)  # what the codes have beyond the model is not read
    torch.testing.assert_close(encoder(deeper), encoder(full))


def test_impossible_input_is_refused(encoder: VoiceVectorEncoder) -> None:
    with pytest.raises(ValueError, match="depth=7 of 6 codebooks"):
        encoder(codes(1, 5), None, torch.tensor([7]))
    with pytest.raises(ValueError, match="0 frames: give 1 frame or more"):
        encoder(codes(2, 5), torch.tensor([5, 0]))
    with pytest.raises(ValueError, match="kernel=2"):
        VoiceVectorConfig(kernel=2)


def test_moments_by_hand() -> None:
    x = torch.tensor([[[1.0], [3.0], [9.0]]])
    mean, deviation = _moments(x, torch.tensor([[[0.5], [0.5], [0.0]]]))
    assert float(mean) == 2.0 and float(deviation) == pytest.approx(1.0)


def test_a_block_reads_frames_at_its_dilation() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 9, 16, requires_grad=True)
    VoiceVectorBlock(tiny(), 2)(x, torch.ones(1, 9, dtype=torch.bool))[0, 4].sum().backward()
    assert x.grad is not None
    assert x.grad[0].abs().sum(-1).nonzero()[:, 0].tolist() == [2, 4, 6]


@torch.no_grad()
def test_saved_and_loaded(encoder: VoiceVectorEncoder, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path)
    again = VoiceVectorEncoder.from_pretrained(tmp_path)
    assert again.config == encoder.config
    assert torch.equal(again(codes(2, 9)), encoder(codes(2, 9)))


def test_the_embedded_size() -> None:
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in VoiceVectorEncoder(mini()).parameters())
    assert 6.0e6 < weights < 7.0e6
