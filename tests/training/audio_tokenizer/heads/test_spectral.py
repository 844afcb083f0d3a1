import math

import librosa
import pytest
import torch

from tokenizer.config import tiny
from training.audio_tokenizer.heads.spectral import FLOOR, SpectralHead

TRACKER_RATE = 24_000


@pytest.fixture(scope="module")
def head() -> SpectralHead:
    torch.manual_seed(0)
    return SpectralHead(tiny())


def test_spectra_are_librosas(head: SpectralHead) -> None:
    audio = 0.1 * torch.randn(1, 4 * 1920, generator=torch.Generator().manual_seed(0))
    spectra = head.spectra(audio)
    assert spectra.shape == (1, 4, 8 * 120)
    steps = spectra.reshape(-1, 120)
    for window, columns, mels in ((512, slice(0, 40), 40), (1024, slice(40, 120), 80)):
        step = 13
        first = step * 240 + 120 - window // 2
        part = audio[0, first : first + window].numpy()
        wanted = librosa.feature.melspectrogram(
            y=part, sr=TRACKER_RATE, n_fft=window, hop_length=window, center=False, n_mels=mels, power=1.0
        )[:, 0]
        assert steps[step, columns].numpy() == pytest.approx(
            torch.from_numpy(wanted).log10().numpy(), abs=1e-3
        )


def test_silence_is_the_floor_and_loudness_moves_all(head: SpectralHead) -> None:
    assert head.spectra(torch.zeros(1, 1920)).unique().tolist() == pytest.approx([math.log10(FLOOR)])
    audio = torch.randn(1, 3840, generator=torch.Generator().manual_seed(1))
    assert (head.spectra(audio) - head.spectra(0.1 * audio)).mean() == pytest.approx(1.0, abs=1e-4)


def test_the_loss_reaches_the_latents_and_not_the_audio(head: SpectralHead) -> None:
    latents = torch.zeros(2, 2, 24, requires_grad=True)
    audio = torch.randn(2, 3840, generator=torch.Generator().manual_seed(2), requires_grad=True)
    head(latents, audio).backward()
    assert latents.grad is not None and latents.grad.abs().sum() > 0 and audio.grad is None
