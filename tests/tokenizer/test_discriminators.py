import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten

from tokenizer.discriminators import (
    DiscriminatorConfig,
    DiscriminatorOutput,
    Discriminators,
    SpectrumDiscriminator,
    band_edges,
    fold_periods,
    generator_loss,
    mini,
    normalize_level,
    paper,
    split_real_fake,
    tiny,
)
from tokenizer.io.checkpoint import CheckpointError
from training.audio_tokenizer.losses import discriminator_loss, feature_loss


def noise(batch: int = 2, samples: int = 1000, seed: int = 0) -> Tensor:
    return torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_paper_counts_its_parameters() -> None:
    with torch.device("meta"):
        discriminators = Discriminators(paper())
    # Weight norm: a gain and a bias an output, beside the kernel of every output.
    widths = [(1, 32, 5), (32, 128, 5), (128, 512, 5), (512, 1024, 5), (1024, 1024, 5), (1024, 1, 3)]
    period = sum(inputs * outputs * kernel + 2 * outputs for inputs, outputs, kernel in widths)
    assert sum(parameters(part) for part in discriminators.periods) == 5 * period == 41_105_770
    band = [(2, 32, 27), (32, 32, 27), (32, 32, 27), (32, 32, 27), (32, 32, 9)]
    window = 5 * sum(i * o * k + 2 * o for i, o, k in band) + 32 * 9 + 2
    assert sum(parameters(part) for part in discriminators.spectra) == 3 * window == 1_413_990


def test_level_by_hand() -> None:
    audio = torch.tensor([[3.0, 1.0, -1.0, 1.0], [5.0, 5.0, 5.0, 5.0]])
    torch.testing.assert_close(normalize_level(audio), torch.tensor([[0.8, 0.0, -0.8, 0.0], [0.0] * 4]))


def test_period_folding_by_hand() -> None:
    audio = torch.arange(7.0)[None]
    assert fold_periods(audio, 3)[0, 0].tolist() == [[0, 3, 6], [1, 4, 5], [2, 5, 4]]  # 0..6, then back: 5, 4
    assert fold_periods(audio[:, :6], 3)[0, 0].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize(
    ("window", "edges"),
    [
        (2048, [0, 102, 256, 512, 768, 1025]),
        (1024, [0, 51, 128, 256, 384, 513]),
        (512, [0, 25, 64, 128, 192, 257]),
    ],
)
def test_band_edges(window: int, edges: list[int]) -> None:
    bands = band_edges(window // 2 + 1)
    assert [low for low, _ in bands] + [bands[-1][1]] == edges
    assert [high for _, high in bands[:-1]] == edges[1:-1]


def test_spectrum_is_a_fourier_transform_by_hops() -> None:
    """Frame i covers samples from i hops minus 3/8 of a window on, unnormalised."""
    audio, window = noise(1, 160), 64
    spectrum = SpectrumDiscriminator(window, 2).spectrum(audio)
    assert spectrum.shape == (1, 2, 10, 33)
    hann = 0.5 - 0.5 * torch.cos(2 * torch.pi * torch.arange(window) / window)
    for frame in (2, 5):
        start = frame * 16 - 24
        expected = torch.fft.rfft(audio[0, start : start + window] * hann)
        torch.testing.assert_close(spectrum[0, 0, frame], expected.real, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(spectrum[0, 1, frame], expected.imag, atol=1e-4, rtol=1e-4)
    assert SpectrumDiscriminator(window, 2).spectrum(noise(1, 161)).shape[2] == 11


def test_magnitudes_by_hand() -> None:
    """A sine of amplitude A at a bin of a Hann window of N samples is A N / 4: 10 ** -0.7 of N for 0.8."""
    discriminator = SpectrumDiscriminator(64, 2, magnitudes=True)
    sine = 0.8 * torch.sin(2 * torch.pi * 8 / 64 * torch.arange(640.0))
    spectrum = discriminator.spectrum(torch.stack([sine, torch.zeros(640)]))
    assert spectrum.shape == (2, 1, 40, 33) and torch.equal(spectrum[1], torch.zeros(1, 40, 33))
    torch.testing.assert_close(spectrum[0, 0, 20, 8], torch.tensor((math.log10(0.2) + 5) / 2))
    torch.testing.assert_close(discriminator.spectrum(-sine[None])[0], spectrum[0])  # phases are not in it
    assert discriminator.bands[0][0].in_channels == 1 and len(discriminator(sine[None]).features) == 25


@pytest.mark.parametrize("kind", ["periods", "windows"])
def test_one_kind_of_discriminator_is_enough(kind: str) -> None:
    config = replace(tiny(), **{kind: ()})
    assert len(Discriminators(config)(noise(1, 100))) == len(config.periods) + len(config.windows)


def test_maps_and_their_shapes() -> None:
    real = Discriminators(tiny())(noise(2, 1000))
    periods, spectra = real[:2], real[2:]
    assert [[tuple(x.shape) for x in j.features] for j in periods] == [
        [(2, 4, 2, 167), (2, 6, 2, 56), (2, 6, 2, 56)],
        [(2, 4, 3, 112), (2, 6, 3, 38), (2, 6, 3, 38)],
    ]
    assert [tuple(j.logits.shape) for j in periods] == [(2, 1, 2, 56), (2, 1, 3, 38)]
    # 63 frames; 33 bins in bands of 3, 5, 8, 8, 9, three times halved (upward)
    assert [tuple(x.shape[2:]) for x in spectra[0].features[::5]] == [
        (63, 3), (63, 5), (63, 8), (63, 8), (63, 9),
    ]  # fmt: skip
    assert spectra[0].logits.shape == (2, 1, 63, 1 + 1 + 1 + 1 + 2)


def test_paper_has_a_hundred_features() -> None:
    """Five layers of five periods, five layers of five bands of three windows."""
    config = replace(paper(), period_channels=(2, 2, 2, 2, 2), band_channels=1)
    outputs = Discriminators(config)(noise(1, 2400))
    assert len(outputs) == 8 and sum(len(j.features) for j in outputs) == 100


def test_period_discriminator_by_hand() -> None:
    """Its first layer is a dilated convolution of the audio that it never folded."""
    discriminators = Discriminators(tiny())
    audio, layer = normalize_level(noise(1, 603)), discriminators.periods[1].layers[0]
    plain = F.conv1d(audio[:, None], layer.weight[:, :, 0], layer.bias, stride=1, padding=6, dilation=3)
    every_third = F.leaky_relu(plain, 0.1).unflatten(-1, (-1, 9))[
        ..., :3
    ]  # of nine samples, the first period
    feature = discriminators(noise(1, 603))[1].features[0]
    torch.testing.assert_close(feature, every_third.mT)


def test_loudness_and_offset_do_not_matter() -> None:
    discriminators = Discriminators(tiny())
    for plain, changed in zip(discriminators(noise()), discriminators(5 * noise() + 0.3), strict=True):
        torch.testing.assert_close(plain.logits, changed.logits, atol=1e-4, rtol=1e-4)


def test_real_and_fake_in_one_pass_are_as_in_two() -> None:
    discriminators, real, fake = Discriminators(tiny()), noise(seed=1), noise(seed=2)
    joint = split_real_fake(discriminators(torch.cat([real, fake])))
    for half, separate in zip(joint, (discriminators(real), discriminators(fake)), strict=True):
        for a, b in zip(half, separate, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_autocast_leaves_level_and_spectrum_alone() -> None:
    discriminator = SpectrumDiscriminator(64, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(discriminator.spectrum(noise()), discriminator.spectrum(noise()))
        under = discriminator.spectrum(noise())
        outputs = Discriminators(tiny())(noise())
    assert torch.equal(under, discriminator.spectrum(noise())) and under.dtype == torch.float32
    assert all(j.logits.dtype == torch.bfloat16 for j in outputs)
    losses = [discriminator_loss(outputs, outputs), generator_loss(outputs), feature_loss(outputs, outputs)]
    assert all(loss.dtype == torch.float32 for loss in losses)


def test_silence_has_finite_gradients() -> None:
    audio = torch.zeros(1, 1000, requires_grad=True)
    generator_loss(Discriminators(tiny())(audio)).backward()
    assert audio.grad is not None and audio.grad.isfinite().all()


def test_learns_to_tell_and_is_fooled() -> None:
    """Discriminators learn noise from buzz; then noise moves to pass for buzz, or to give its features."""
    discriminators = Discriminators(tiny())
    buzz = torch.sin(torch.arange(1000) * 0.3).expand(2, -1)
    optimizer = torch.optim.AdamW(discriminators.parameters(), 1e-2)
    for step in range(30):
        real, fake = split_real_fake(discriminators(torch.cat([buzz, noise(seed=step)])))
        loss = discriminator_loss(real, fake)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3  # 3 x 0.5 is chance
    real = discriminators(buzz)
    for falls in (generator_loss, lambda fake: feature_loss(real, fake)):
        audio = noise(seed=99).requires_grad_()
        optimizer, losses = torch.optim.Adam([audio], 0.05), []
        for _ in range(50):
            losses.append(falls(discriminators(audio)))
            optimizer.zero_grad()
            losses[-1].backward(retain_graph=True)
            optimizer.step()
        assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"periods": (), "windows": ()}, "neither periods nor windows"),
        ({"periods": (0,)}, "period 0"),
        ({"windows": (30,)}, "window 30"),
        ({"period_channels": ()}, r"period_channels=\(\)"),
        ({"band_channels": 0}, "band_channels=0"),
    ],
)
def test_impossible_shapes_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiscriminatorConfig(**change)


def test_too_little_audio_is_refused() -> None:
    discriminators = Discriminators(tiny())
    assert len(discriminators(noise(1, 40))) == 3
    with pytest.raises(ValueError, match="39 samples are too few for these discriminators: give 40"):
        discriminators(noise(1, 39))


def test_saved_and_loaded_outputs_are_the_same(tmp_path: Path) -> None:
    discriminators = Discriminators(tiny())
    discriminators.save_pretrained(tmp_path)
    loaded, audio = Discriminators.from_pretrained(tmp_path), noise()
    for again, before in zip(loaded(audio), discriminators(audio), strict=True):
        assert torch.equal(again.logits, before.logits)
    (tmp_path / "config.json").write_text('{"windows": [30]}')
    with pytest.raises(CheckpointError, match="window 30"):
        Discriminators.from_pretrained(tmp_path)


def test_mini_is_small() -> None:
    assert parameters(Discriminators(mini())) < 40_000


def test_output_is_a_tuple() -> None:
    """Distributed wrappers find tensors in tuples and lists, not in objects."""
    leaves, _ = tree_flatten(Discriminators(tiny())(noise()))
    assert len(leaves) == 3 + 3 + 25 + 3 and all(isinstance(leaf, Tensor) for leaf in leaves)
    assert isinstance(DiscriminatorOutput([], torch.zeros(())), tuple)
