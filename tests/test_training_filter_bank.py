import math

import pytest
import torch

from tokenizer import AudioTokenizer
from tokenizer.config import mini, mirrored, tiny
from training.filter_bank import cosines, install, windowed_waves


@pytest.fixture(scope="module")
def heard() -> AudioTokenizer:
    torch.manual_seed(0)
    config = mirrored(
        patches=(240, 8),
        dims=(256, 64),
        layers=(1, 1),
        ffn_dims=(160, 64),
        head_dim=32,
        code_dim=24,
        quantizer=tiny().quantizer,
        layer_scale=0.1,
    )
    tokenizer = AudioTokenizer(config)
    install(tokenizer, 0.1 * torch.randn(4, 24_000))
    return tokenizer


def test_the_transform_is_orthonormal_and_finds_its_own_rows() -> None:
    rows = cosines(240)
    assert torch.allclose(rows @ rows.T, torch.eye(240), atol=1e-5)
    assert rows[0].tolist() == pytest.approx([1 / math.sqrt(240)] * 240)


def test_waves_come_in_two_phases_and_vanish_at_the_edges() -> None:
    waves = windowed_waves(16, 240, 24_000)
    assert waves.shape == (32, 240) and waves[:, [0, -1]].abs().max() < 1e-3
    assert (waves[2::2] * waves[3::2]).sum(1).abs().max() < 0.1  # of 45, the energy of each


def test_a_tone_fills_its_band_whatever_its_phase(heard: AudioTokenizer) -> None:
    stage = heard.encoder[0]
    layer = stage.layers[0]

    def bands(hertz: float, phase: float) -> torch.Tensor:
        tone = 0.1 * torch.sin(2 * math.pi * hertz * torch.arange(240) / 24_000 + phase)
        x = layer.ffn_norm(stage.project_in(tone))
        return layer.ffn_out(torch.nn.functional.gelu(layer.ffn_in(x)))[240:]

    with torch.no_grad():
        loudest = [int(bands(hertz, 0.3).argmax()) for hertz in (500, 1500, 4000, 8000)]
        assert loudest == sorted(loudest) and len(set(loudest)) == 4
        for hertz, band in zip((500, 1500, 4000, 8000), loudest, strict=True):
            levels = torch.stack([bands(hertz, phase)[band] for phase in torch.linspace(0, 6, 7).tolist()])
            assert levels.std() < 0.15 * levels.mean()


def test_a_stage_that_is_too_narrow_is_refused() -> None:
    with pytest.raises(ValueError, match="patch_size=240, dim=16, ffn_dim=32"):
        install(AudioTokenizer(tiny()), torch.randn(1, 2400))


def test_the_embedded_size_takes_it() -> None:
    tokenizer = AudioTokenizer(mini(), "encoder")
    install(tokenizer, 0.1 * torch.randn(1, 24_000))
    assert tokenizer.latents(torch.randn(1, 1920)).isfinite().all()
