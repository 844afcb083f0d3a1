import math
from dataclasses import replace

import pytest
import torch

from tokenizer import AudioTokenizer, TokenizerConfig
from tokenizer.config import filter_bank_encoder, tiny
from tokenizer.layers.transformer import fold
from training.audio_tokenizer.initialization.filter_bank import (
    BANDS,
    PHASES,
    SHORT_BANDS,
    TRANSFORM_GAIN,
    cosines,
    install,
)
from training.audio_tokenizer.initialization.long_windows import (
    COEFFICIENTS,
    LONG_BANDS,
    MAX_HZ,
    MIN_HZ,
    PATCHES,
    copied_patches,
    long_waves,
    wave_coefficients,
)

RATE, PATCH = 24_000, 480


def filter_bank_config() -> TokenizerConfig:
    return replace(tiny(), encoder=filter_bank_encoder(head_dim=32, dim=64, layers=1, code_dim=24))


@pytest.fixture(scope="module")
def filter_bank_tokenizer() -> AudioTokenizer:
    torch.manual_seed(0)
    tokenizer = AudioTokenizer(filter_bank_config())
    level = 10 ** (-1.5 - 1.5 * torch.cos(torch.linspace(0, 40, 48_000)))
    install(tokenizer, level * torch.randn(8, 48_000, generator=torch.Generator().manual_seed(0)))
    return tokenizer


@torch.no_grad()
def rectified(tokenizer: AudioTokenizer, audio: torch.Tensor) -> torch.Tensor:
    """Outputs of the first stage: its bands, [t, BANDS]."""
    return tokenizer.encoder[0](fold(audio[None, :, None], PATCH))[0, :, :BANDS]


def test_each_patch_is_copied_at_its_own_level() -> None:
    """A second patch twice as loud is copied as if it were not."""
    transform, dim = cosines(8), 100
    x = torch.ones(1, 3, 8)
    x[0, 1] = 2.0
    got = copied_patches(x, transform, dim).view(3, PATCHES, -1)
    torch.testing.assert_close(got[0, 2], got[1, 2], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(got[1, 1], got[0, 2])  # the step before
    torch.testing.assert_close(got[0, 0], got[0, 2])  # before the beginning stands the first patch


def test_truncated_waves_filter_as_whole_ones_do() -> None:
    waves, transform = long_waves(PATCH, RATE, PHASES), cosines(PATCH)
    coefficients = wave_coefficients(waves, transform)
    assert waves.shape == (LONG_BANDS, PHASES, PATCHES * PATCH) and coefficients.shape == (
        LONG_BANDS,
        PHASES,
        PATCHES * COEFFICIENTS,
    )
    assert (
        float(coefficients.square().sum(-1).min()) > 0.97
    )  # of 1: little lies above the copied coefficients
    audio = torch.randn(PATCHES, PATCH, generator=torch.Generator().manual_seed(0))
    low = (audio @ transform.T)[:, :COEFFICIENTS].flatten()
    torch.testing.assert_close(coefficients @ low, waves @ audio.flatten(), atol=0.5, rtol=0)


def test_the_stage_copies_and_rectifies_as_written_by_hand(filter_bank_tokenizer: AudioTokenizer) -> None:
    audio = 0.05 * torch.randn(50 * PATCH, generator=torch.Generator().manual_seed(2))
    transform, dim = cosines(PATCH), filter_bank_tokenizer.config.encoder[0].dim
    copies = copied_patches(fold(audio[None, :, None], PATCH), TRANSFORM_GAIN * transform, dim)[0]
    coefficients = wave_coefficients(long_waves(PATCH, RATE, PHASES), transform)
    wanted = (copies @ coefficients.flatten(0, 1).T).unflatten(-1, (LONG_BANDS, PHASES)).abs().mean(-1)
    got = rectified(filter_bank_tokenizer, audio)[:, SHORT_BANDS:]
    gain = (got * wanted).sum(0) / wanted.square().sum(0)
    torch.testing.assert_close(got, gain * wanted, atol=0.05 * float(got.max()), rtol=0.03)


@pytest.mark.parametrize("pitch", [90.0, 104.0])
def test_harmonics_of_a_low_voice_are_resolved(filter_bank_tokenizer: AudioTokenizer, pitch: float) -> None:
    time = torch.arange(30 * PATCH) / RATE
    waves = [torch.cos(2 * math.pi * k * pitch * time + k * k) for k in range(1, 9)]
    audio = 0.02 * torch.stack(waves).sum(0)
    levels = rectified(filter_bank_tokenizer, audio)[10:, SHORT_BANDS:].mean(0)
    mels = torch.linspace(
        2595 * math.log10(1 + MIN_HZ / 700), 2595 * math.log10(1 + MAX_HZ / 700), LONG_BANDS
    )
    hertz = 700 * (10 ** (mels / 2595) - 1)
    for k in range(2, 7):
        on, between = ((hertz - f).abs().argmin() for f in (k * pitch, (k + 0.5) * pitch))
        assert levels[on] > 2 * levels[between]


def test_levels_do_not_depend_on_loudness(filter_bank_tokenizer: AudioTokenizer) -> None:
    audio = torch.randn(20 * PATCH, generator=torch.Generator().manual_seed(3))
    quiet, loud = (rectified(filter_bank_tokenizer, gain * audio)[:, SHORT_BANDS:] for gain in (0.01, 0.1))
    torch.testing.assert_close(quiet, loud, rtol=0.1, atol=0.1 * float(loud.max()))
