"""Decoder adaptation: the last projection of a vocoder decoder learns what codes do not tell about a voice.

It is learnt in a second from the recording of the prompt, and belongs to that voice: streams of one batch add
their own adaptations (`tokenizer.layers.streaming.StreamCache.set_adaptation`).
"""

import copy
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from tokenizer import AudioTokenizer
from tokenizer.discriminators import Discriminators, generator_loss
from tokenizer.layers.vocoder import Vocoder

STEPS, LEARNING_RATE = 10, 2e-3
"""Steps of Adam; 25 of them bring little more."""
WINDOW, MELS, POOL_FRAMES, FLOOR = 1024, 64, 4, 1e-10
"""Parameters of the spectrograms that are compared. Energies are averaged over several frames: a decoder that
has to match the noise of each single frame gives up noise, and buzzes."""
ADVERSARIAL_WEIGHT, ADVERSARIAL_SECONDS = 0.05, 1
"""Weight of the discriminators' loss beside the distance of spectrograms, and the seconds of audio that they
see in each step."""


def adaptation_shape(tokenizer: AudioTokenizer) -> tuple[int, int] | None:
    """Return output and input features of the decoder's last projection; None for one without a vocoder."""
    if tokenizer.vocoder is None or not isinstance(tokenizer.decoder[-1].project_out, nn.Linear):
        return None
    stage = tokenizer.config.decoder[-1]
    return stage.output_dim, stage.dim


def adapt_decoder(
    tokenizer: AudioTokenizer,
    codes: Int[Tensor, "t k"],
    audio: Float[Tensor, " s"],
    discriminators: Discriminators | None,
) -> Float[Tensor, "o d"]:
    """Learn what the last projection has to add so that decoded codes sound like their recording.

    Pitch and content stay as the decoder draws them. The tokenizer is not changed.

    Args:
        tokenizer: An audio tokenizer whose decoder ends in a vocoder.
        codes: Codes [t, k] of the recording.
        audio: The recording [s], at the tokenizer's sample rate.
        discriminators: Keep the sound speech-like, where they are given.

    Returns:
        The matrix [o, d] to add, on the CPU.
    """
    last, vocoder = tokenizer.decoder[-1], cast(Vocoder, tokenizer.vocoder)
    weight = cast(nn.Linear, last.project_out).weight
    with torch.inference_mode(False), torch.enable_grad():
        spectrogram = _Spectrogram(tokenizer.config.sample_rate, weight.device)
        states = _projection_inputs(tokenizer, codes.long().clone().to(weight.device))
        target = spectrogram(audio.clone().to(weight.device))
        added = torch.zeros_like(weight, requires_grad=True)
        optimizer = torch.optim.Adam([added], LEARNING_RATE)
        for step in range(STEPS):
            optimizer.zero_grad()
            decoded = vocoder(F.linear(states, weight.detach() + added))[0, : len(audio)]
            loss = (spectrogram(decoded) - target).abs().mean()
            if discriminators is not None:
                excerpt = _excerpt(decoded, ADVERSARIAL_SECONDS * tokenizer.config.sample_rate, step)
                loss = loss + ADVERSARIAL_WEIGHT * generator_loss(discriminators(excerpt[None]))
            loss.backward()
            optimizer.step()
        return added.detach().cpu()


@torch.no_grad()
def _projection_inputs(tokenizer: AudioTokenizer, codes: Int[Tensor, "t k"]) -> Float[Tensor, "one u d"]:
    """Compute the inputs of the last projection, by a copy of the decoder that shares everything else."""
    *earlier, last = tokenizer.decoder
    shared = tokenizer.encoder, tokenizer.quantizer, *earlier, last.project_in, last.layers
    without_projection = copy.deepcopy(tokenizer, {id(part): part for part in shared})
    without_projection.decoder[-1].project_out = nn.Identity()
    return without_projection.controls(without_projection.quantizer.decode(codes[None]))


def _excerpt(audio: Float[Tensor, " s"], length: int, step: int) -> Float[Tensor, " p"]:
    """Return the excerpt for this step: one after the other, and then from the beginning again."""
    length = min(length, len(audio))
    start = step % -(-len(audio) // length) * length
    return audio[min(start, len(audio) - length) :][:length]


class _Spectrogram:
    """Half the log10 of mel energies, [s] to [t, m], averaged over overlapping groups of frames."""

    def __init__(self, sample_rate: int, device: torch.device) -> None:
        half = sample_rate / 2
        filters = mel_filter_bank(WINDOW // 2 + 1, MELS, 0.0, half, sample_rate, "slaney", "slaney")
        self.filters = torch.from_numpy(filters).float().to(device)
        self.hann = torch.hann_window(WINDOW, device=device)

    def __call__(self, audio: Float[Tensor, " s"]) -> Float[Tensor, "t m"]:
        spectrum = torch.stft(audio, WINDOW, WINDOW // 4, window=self.hann, return_complex=True)
        energies = self.filters.T @ spectrum.abs().square()
        pooled = F.avg_pool1d(energies[None], POOL_FRAMES, POOL_FRAMES // 2)[0]
        return pooled.mT.clamp(min=FLOOR).log10() / 2
