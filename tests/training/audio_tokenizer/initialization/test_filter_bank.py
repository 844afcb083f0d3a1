import math
from dataclasses import replace

import pytest
import torch

from tokenizer import AudioTokenizer, TokenizerConfig
from tokenizer.config import filter_bank_encoder, mini, small, tiny
from tokenizer.layers.transformer import fold
from training.audio_tokenizer.initialization.filter_bank import (
    BANDS,
    FULL_PATCH_BANDS,
    HALF_PATCH_BANDS,
    SHORT_BANDS,
    cosines,
    has_room,
    install,
    linear_map,
    waves,
)

RATE, PATCH = 24_000, 480


def filter_bank_config() -> TokenizerConfig:
    return replace(tiny(), encoder=filter_bank_encoder(head_dim=32, dim=64, layers=1, code_dim=24))


def speech_like(rows: int, samples: int) -> torch.Tensor:
    """Noise whose level goes up and down by 60 dB."""
    level = 10 ** (-1.5 - 1.5 * torch.cos(torch.linspace(0, 40, samples)))
    return level * torch.randn(rows, samples, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def filter_bank_tokenizer() -> AudioTokenizer:
    torch.manual_seed(0)
    tokenizer = AudioTokenizer(filter_bank_config())
    install(tokenizer, speech_like(8, 48_000))
    return tokenizer


@torch.no_grad()
def bands(tokenizer: AudioTokenizer, audio: torch.Tensor) -> torch.Tensor:
    x = fold(audio[None, :, None], PATCH)
    return tokenizer.encoder[1](tokenizer.encoder[0](x))[0]


def test_the_transform_is_orthonormal_and_finds_its_own_rows() -> None:
    rows = cosines(240)
    assert torch.allclose(rows @ rows.T, torch.eye(240), atol=1e-5)
    assert rows[0].tolist() == pytest.approx([1 / math.sqrt(240)] * 240)


def test_waves_have_norm_one_and_stay_in_their_part_of_the_patch() -> None:
    made = waves(PATCH, RATE)
    assert made.shape == (SHORT_BANDS, 4, PATCH)
    torch.testing.assert_close(made.norm(dim=-1), torch.ones(SHORT_BANDS, 4))
    assert made[FULL_PATCH_BANDS : FULL_PATCH_BANDS + HALF_PATCH_BANDS, :, PATCH // 2 :].abs().max() == 0
    assert made[FULL_PATCH_BANDS + HALF_PATCH_BANDS :, :, : PATCH // 2].abs().max() == 0
    assert (made[1:, 0] * made[1:, 2]).sum(-1).abs().max() < 0.1  # a quarter of a turn apart


@pytest.mark.parametrize("hertz", [300.0, 1000.0, 2500.0])
def test_a_tone_is_loudest_in_its_band_whatever_its_phase(
    filter_bank_tokenizer: AudioTokenizer, hertz: float
) -> None:
    time = torch.arange(PATCH) / RATE
    strength = (waves(PATCH, RATE)[:FULL_PATCH_BANDS] @ torch.sin(2 * math.pi * hertz * time)).abs().amax(1)
    levels = torch.stack(
        [
            bands(filter_bank_tokenizer, 0.05 * torch.sin(2 * math.pi * hertz * time + phase))[0, :BANDS]
            for phase in range(6)
        ]
    )
    silence = bands(filter_bank_tokenizer, torch.zeros(PATCH))[0, :BANDS]
    rise = levels.mean(0) - silence
    assert abs(int(rise[:FULL_PATCH_BANDS].argmax()) - int(strength.argmax())) <= 3
    assert levels[:, int(strength.argmax())].std() < 0.1


def test_levels_are_logarithmic_over_forty_decibels(filter_bank_tokenizer: AudioTokenizer) -> None:
    noise = torch.randn(50 * PATCH, generator=torch.Generator().manual_seed(1))
    levels = torch.stack(
        [
            bands(filter_bank_tokenizer, 10**power * noise)[:, :SHORT_BANDS].mean(0)
            for power in (-3.0, -2.0, -1.0)
        ]
    )
    assert ((levels[1:] - levels[:-1]) - 1).abs().mean() < 0.15


def test_outputs_are_the_bands_around_zero(filter_bank_tokenizer: AudioTokenizer) -> None:
    out = torch.stack([bands(filter_bank_tokenizer, row) for row in speech_like(8, 48_000)])
    assert out[..., :BANDS].mean((0, 1)).abs().max() < 0.05
    assert out.shape[-1] == BANDS


def test_linear_map_finds_the_map() -> None:
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    wanted = torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]])
    torch.testing.assert_close(linear_map(x, x @ wanted), wanted, atol=1e-4, rtol=1e-4)


def test_an_encoder_that_is_too_narrow_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dim >= patch_size \+ 403 .* choose another preset"):
        install(AudioTokenizer(tiny()), torch.randn(1, 2400))


def test_the_embedded_sizes_have_room() -> None:
    assert has_room(mini()) and has_room(small()) and not has_room(tiny())
