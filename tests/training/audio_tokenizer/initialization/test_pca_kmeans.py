import pytest
import torch

from tests.training.audio_tokenizer.initialization.test_filter_bank import filter_bank_config, speech_like
from tokenizer import AudioTokenizer
from training.audio_tokenizer.heads.spectral import SpectralHead
from training.audio_tokenizer.initialization.pca_kmeans import calculate, components, fit, init_spectral_head


@pytest.fixture(scope="module")
def calculated() -> tuple[AudioTokenizer, SpectralHead, torch.Tensor]:
    torch.manual_seed(0)
    tokenizer, audio = AudioTokenizer(filter_bank_config()), speech_like(48, 24_960).view(6, 8, -1)
    head = SpectralHead(tokenizer.config)
    calculate(tokenizer, head, audio, seed=0)
    return tokenizer, head, audio


def test_components_are_the_axes_by_strength() -> None:
    x = torch.tensor([[0.0, 3.0], [0.0, -3.0], [1.0, 0.0], [-1.0, 0.0]])
    torch.testing.assert_close(components(x).abs(), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    moved = components(x + 10, mean=torch.tensor([10.0, 10.0]))
    torch.testing.assert_close(moved.abs(), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))


def test_as_many_points_as_rows_are_found_again() -> None:
    torch.manual_seed(0)
    quantizer = AudioTokenizer(filter_bank_config()).quantizer
    latents = torch.cat([torch.eye(24)[:4], -torch.eye(24)[:4]]).repeat(100, 1) * 5
    latents = latents + 1e-3 * torch.randn(latents.shape)
    fit(quantizer, latents, seed=0)
    torch.testing.assert_close(quantizer(latents[None]).latents[0], latents, atol=1e-2, rtol=0)


def test_every_codebook_leaves_less(calculated: tuple[AudioTokenizer, SpectralHead, torch.Tensor]) -> None:
    tokenizer, _, audio = calculated
    with torch.no_grad():
        latents = tokenizer.latents(audio[0])
        left = [
            float((tokenizer.quantizer(latents, torch.full((8,), depth)).latents - latents).square().mean())
            for depth in range(1, 7)
        ]
    assert left == sorted(left, reverse=True) and left[-1] < 0.5 * float(latents.var(0).mean())


def test_the_head_reads_more_from_more_codebooks(
    calculated: tuple[AudioTokenizer, SpectralHead, torch.Tensor],
) -> None:
    tokenizer, head, audio = calculated
    with torch.no_grad():
        latents, spectra = tokenizer.latents(audio[0]), head.spectra(audio[0])
        errors = [
            float(head(tokenizer.quantizer(latents, torch.full((8,), depth)).latents, audio[0]))
            for depth in (1, 6)
        ]
    assert errors[1] < errors[0] < float((spectra - spectra.mean((0, 1))).abs().mean())


def test_the_head_begins_as_the_best_linear_map() -> None:
    torch.manual_seed(0)
    tokenizer = AudioTokenizer(filter_bank_config())
    head, quantizer = SpectralHead(tokenizer.config), tokenizer.quantizer
    low, wanted = torch.randn(300, 16), torch.randn(16, 960)
    with torch.no_grad():
        latents = quantizer.project_out(low)
        fit(quantizer, latents, seed=0)
        spectra = low @ wanted + 2
        init_spectral_head(head, quantizer, latents, spectra)
        torch.testing.assert_close(head.mlp(latents), spectra, atol=1e-2, rtol=1e-2)


def test_layers_behind_the_filter_bank_begin_as_nothing(
    calculated: tuple[AudioTokenizer, SpectralHead, torch.Tensor],
) -> None:
    tokenizer, _, audio = calculated
    layer = tokenizer.encoder[-1].layers[0]
    assert layer.ffn_out.weight.abs().max() == 0 and layer.attention_out.weight.abs().max() == 0
    loss = tokenizer.latents(audio[0, :1]).square().sum()
    loss.backward()
    assert layer.ffn_out.weight.grad is not None and layer.ffn_out.weight.grad.abs().max() > 0
