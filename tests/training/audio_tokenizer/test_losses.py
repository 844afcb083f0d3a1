from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from tokenizer.discriminators import DiscriminatorOutput, generator_loss
from training.audio_tokenizer.losses import (
    WINDOWS,
    LossWeights,
    MultiScaleMelLoss,
    discriminator_loss,
    feature_loss,
    weighted_sum,
)

RATE = 24_000
LOSS = MultiScaleMelLoss(RATE)


def noise(batch: int = 2, samples: int = 6000, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))


def test_equal_audio_costs_nothing() -> None:
    assert LOSS(noise(), noise()).item() == 0.0


@pytest.mark.parametrize("window", WINDOWS)
def test_ten_times_the_amplitude_is_one_more_in_every_bin(window: int) -> None:
    quiet, loud = LOSS.log_mel(noise(), window), LOSS.log_mel(10 * noise(), window)
    assert quiet.min() > -5  # above the floor
    torch.testing.assert_close(loud - quiet, torch.ones_like(quiet), rtol=0, atol=1e-4)


def test_ten_times_the_amplitude_costs_the_number_of_scales() -> None:
    torch.testing.assert_close(LOSS(10 * noise(), noise()), torch.tensor(7.0), rtol=0, atol=1e-4)


def test_below_the_floor_all_is_silence() -> None:
    silence = torch.zeros(1, 4096)
    for window in WINDOWS:
        floor = LOSS.log_mel(silence, window)
        torch.testing.assert_close(floor, torch.full_like(floor, -5.0))
    assert LOSS(1e-8 * noise(1, 4096), silence).item() == 0.0


def test_batch_is_the_mean_of_its_samples() -> None:
    one, other = noise(2, seed=1), noise(2, seed=2)
    single = torch.stack([LOSS(one[i : i + 1], other[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(LOSS(one, other), single.mean())


def test_gradient_reaches_every_sample_and_is_finite_in_silence() -> None:
    audio = noise(1).requires_grad_()
    LOSS(audio, noise(1, seed=1)).backward()
    assert audio.grad is not None and audio.grad.isfinite().all()
    assert (audio.grad != 0).float().mean() > 0.99
    silence = torch.zeros(1, 6000, requires_grad=True)
    LOSS(silence, noise(1)).backward()
    assert silence.grad is not None and silence.grad.isfinite().all()


def test_autocast_changes_nothing() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        under = LOSS(noise(seed=1), noise())
    torch.testing.assert_close(under, LOSS(noise(seed=1), noise()), rtol=0, atol=0)


def test_no_filter_is_empty_at_24_khz() -> None:
    filters = {name: buffer for name, buffer in LOSS.named_buffers() if name.startswith("filters")}
    assert [bank.shape[1] for bank in filters.values()] == [5, 10, 20, 40, 80, 160, 320]
    for bank in filters.values():
        assert (bank.max(0).values > 0).all()


@pytest.mark.parametrize("window", [64, 512])
def test_one_scale_equals_the_definition(window: int) -> None:
    one, other = noise(1, seed=1)[0].numpy(), noise(1, seed=2)[0].numpy()
    one_mel, other_mel = log_mel(one, window), log_mel(other, window)
    ours = LOSS.log_mel(torch.from_numpy(one)[None], window)[0]
    np.testing.assert_allclose(ours.numpy(), one_mel, atol=1e-4)
    loss = MultiScaleMelLoss(RATE, (window,))(torch.from_numpy(one)[None], torch.from_numpy(other)[None])
    assert loss.item() == pytest.approx(np.abs(one_mel - other_mel).mean(), rel=1e-5)


@pytest.mark.parametrize("window", WINDOWS)
def test_one_scale_is_librosa_s(window: int) -> None:
    librosa = pytest.importorskip("librosa")
    audio = noise(1)[0]
    magnitude = abs(librosa.stft(audio.numpy(), n_fft=window, hop_length=window // 4, pad_mode="reflect"))
    mel = librosa.filters.mel(sr=RATE, n_fft=window, n_mels=window * 5 // 32) @ magnitude
    ours = LOSS.log_mel(audio[None], window)[0].mT
    np.testing.assert_allclose(ours.numpy(), np.log10(np.maximum(mel, 1e-5)), atol=1e-4)


def test_adversarial_losses_by_hand() -> None:
    """Two sub-discriminators: means inside each, a sum over them."""
    real = [output([], [0.5, 1.0]), output([], [2.0])]
    fake = [output([], [0.5, 0.0]), output([], [3.0])]
    # (0.5^2 + 0) / 2 + 1 for real, (0.5^2 + 0) / 2 + 9 for fake
    assert discriminator_loss(real, fake).item() == pytest.approx(0.125 + 1 + 0.125 + 9)
    assert generator_loss(fake).item() == pytest.approx((0.25 + 1) / 2 + 4)


def test_feature_loss_by_hand() -> None:
    """Summed over maps and sub-discriminators, mean inside a map, logits left out."""
    real = [output([[1.0, 2.0], [0.0]], [7.0]), output([[1.0]], [7.0])]
    fake = [output([[1.0, 4.0], [-3.0]], [0.0]), output([[0.5]], [0.0])]
    assert feature_loss(real, fake).item() == pytest.approx(1 + 3 + 0.5)


def test_losses_of_a_two_layer_discriminator_by_hand() -> None:
    """h = 2x, logit = mean of h - 1: every loss and its gradient, worked out on paper."""
    audio = torch.tensor([0.5, 1.0], requires_grad=True)

    def unwrapped_discriminators(x: torch.Tensor) -> list[DiscriminatorOutput]:
        hidden = 2 * x
        return [DiscriminatorOutput([hidden], (hidden.mean() - 1).view(1))]

    real, fake = unwrapped_discriminators(torch.tensor([1.0, 1.0])), unwrapped_discriminators(audio)
    assert discriminator_loss(real, fake).item() == pytest.approx(0 + 0.25)
    assert generator_loss(fake).item() == pytest.approx(0.25)
    assert feature_loss(real, fake).item() == pytest.approx(0.5)  # |1 - 2| and |2 - 2|
    (grad,) = torch.autograd.grad(generator_loss(fake), audio, retain_graph=True)
    torch.testing.assert_close(grad, torch.tensor([-1.0, -1.0]))  # -2 (1 - 0.5) times 2 / 2
    (grad,) = torch.autograd.grad(feature_loss(real, fake), audio)
    torch.testing.assert_close(grad, torch.tensor([-1.0, 0.0]))  # -2 / 2


def test_features_of_real_audio_get_no_gradient() -> None:
    real, fake = torch.ones(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    feature_loss([DiscriminatorOutput([real], real)], [DiscriminatorOutput([fake], fake)]).backward()
    assert real.grad is None
    torch.testing.assert_close(fake.grad, torch.full((3,), -1 / 3))


def test_weights_are_the_paper_s() -> None:
    paper = {"semantic": 20, "mel": 15, "commitment": 0.25, "codebook": 1, "adversarial": 1, "feature": 2}
    assert asdict(LossWeights()) == {**paper, "spectral": 0, "ctc": 0, "pitch": 0}


def test_weighted_sum_by_hand() -> None:
    losses = {"mel": torch.tensor(2.0), "feature": torch.tensor(0.5, dtype=torch.bfloat16)}
    total = weighted_sum(losses, LossWeights())
    assert total.item() == 15 * 2 + 2 * 0.5 and total.dtype == torch.float32


@pytest.mark.parametrize("off", list(asdict(LossWeights())))
def test_weight_of_0_removes_exactly_its_gradient(off: str) -> None:
    all_on = LossWeights(spectral=10.0, ctc=1.0, pitch=3.0)
    names = list(asdict(all_on))
    shared = torch.randn(4, requires_grad=True)
    own = {name: torch.randn(4, requires_grad=True) for name in names}
    losses = {name: (shared * own[name]).sin().sum() for name in names}
    weighted_sum(losses, replace(all_on, **{off: 0.0})).backward()
    rest = {name: loss for name, loss in losses.items() if name != off}
    losses = {name: (shared * own[name]).sin().sum() for name in rest}
    (without,) = torch.autograd.grad(weighted_sum(losses, all_on), shared)
    assert shared.grad is not None and torch.equal(shared.grad, without)
    for name, parameter in own.items():
        assert parameter.grad is not None and bool((parameter.grad == 0).all()) == (name == off)


def test_bad_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="mel=-1"):
        LossWeights(mel=-1)
    with pytest.raises(ValueError, match="feature=nan"):
        LossWeights(feature=float("nan"))
    with pytest.raises(ValueError, match="no weight for the loss 'stft'; the losses are semantic, mel"):
        weighted_sum({"stft": torch.tensor(1.0)}, LossWeights())


def output(features: list[list[float]], logits: list[float]) -> DiscriminatorOutput:
    return DiscriminatorOutput([torch.tensor(x) for x in features], torch.tensor(logits))


def log_mel(audio: np.ndarray, window: int) -> np.ndarray:
    """Centred periodic-Hann spectrogram of magnitudes through Slaney's mel filters, written out."""
    hop, mels = window // 4, window * 5 // 32
    padded = np.pad(audio.astype(np.float64), window // 2, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    frames = np.stack([padded[i : i + window] for i in range(0, len(padded) - window + 1, hop)])
    magnitude = np.abs(np.fft.rfft(frames * hann))

    top = 15 + np.log(RATE / 2 / 1000) / (np.log(6.4) / 27)  # linear to 1 kHz = mel 15, then logarithmic
    points = np.linspace(0, top, mels + 2)
    hertz = np.where(points < 15, points * 200 / 3, 1000 * np.exp((points - 15) * np.log(6.4) / 27))
    bins = np.arange(window // 2 + 1) * RATE / window
    bank = np.zeros((len(bins), mels))
    for m in range(mels):
        left, centre, right = hertz[m : m + 3]
        triangle = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
        bank[:, m] = np.maximum(triangle, 0) * 2 / (right - left)
    return np.log10(np.maximum(magnitude @ bank, 1e-5))
