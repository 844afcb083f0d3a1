"""What codes do not say of a timbre, the last projection of a decoder that ends in a vocoder learns to add.

It is learnt in a second from what is known of a voice, its recording, and belongs to that voice: streams of
one batch each add their own (`tokenizer.layers.streaming.StreamCache.tint`).
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

STEPS, RATE = 10, 2e-3
"""Of Adam; 25 of them bring little more."""
WINDOW, MELS, MOMENTS, FLOOR = 1024, 64, 4, 1e-10
"""Of the spectrograms in which timbres are compared: energies of several moments together, as a decoder that
shall meet the noise of each moment gives noise up, and buzzes."""
JUDGED, JUDGED_SECONDS = 0.05, 1
"""Weight of the judge, beside the distance of spectrograms, and how much it hears in a step."""


def timbre_shape(tokenizer: AudioTokenizer) -> tuple[int, int] | None:
    """Features out and in of the decoder's last projection; None where it does not end in a vocoder."""
    if tokenizer.vocoder is None or not isinstance(tokenizer.decoder[-1].project_out, nn.Linear):
        return None
    stage = tokenizer.config.decoder[-1]
    return stage.output_dim, stage.dim


def timbre_of(
    tokenizer: AudioTokenizer,
    codes: Int[Tensor, "t k"],
    audio: Float[Tensor, " s"],
    judge: Discriminators | None,
) -> Float[Tensor, "o d"]:
    """What the last projection has to add so that `codes` sound like `audio`, the recording that they are of.

    And like speech, where there is a judge. The pitch that the decoder draws stays; what is said as well. The
    tokenizer is left as it is.
    """
    last, vocoder = tokenizer.decoder[-1], cast(Vocoder, tokenizer.vocoder)
    weight = cast(nn.Linear, last.project_out).weight
    with torch.inference_mode(False), torch.enable_grad():
        spectrogram = _Spectrogram(tokenizer.config.sample_rate, weight.device)
        states = _states(tokenizer, codes.long().clone().to(weight.device))
        wanted = spectrogram(audio.clone().to(weight.device))
        added = torch.zeros_like(weight, requires_grad=True)
        optimizer = torch.optim.Adam([added], RATE)
        for step in range(STEPS):
            optimizer.zero_grad()
            made = vocoder(F.linear(states, weight.detach() + added))[0, : len(audio)]
            loss = (spectrogram(made) - wanted).abs().mean()
            if judge is not None:
                part = _part(made, JUDGED_SECONDS * tokenizer.config.sample_rate, step)
                loss = loss + JUDGED * generator_loss(judge(part[None]))
            loss.backward()
            optimizer.step()
        return added.detach().cpu()


@torch.no_grad()
def _states(tokenizer: AudioTokenizer, codes: Int[Tensor, "t k"]) -> Float[Tensor, "one u d"]:
    """What the last projection reads of the codes, by a decoder that shares all else."""
    *earlier, last = tokenizer.decoder
    shared = tokenizer.encoder, tokenizer.quantizer, *earlier, last.project_in, last.layers
    own = copy.deepcopy(tokenizer, {id(part): part for part in shared})
    own.decoder[-1].project_out = nn.Identity()
    return own.controls(own.quantizer.decode(codes[None]))


def _part(audio: Float[Tensor, " s"], length: int, step: int) -> Float[Tensor, " p"]:
    """What is judged of `audio` in this step: one part after the other, and then again."""
    length = min(length, len(audio))
    start = step % -(-len(audio) // length) * length
    return audio[min(start, len(audio) - length) :][:length]


class _Spectrogram:
    """Half the log10 of mel energies, [s] to [t, m]; every moment is in two means of several."""

    def __init__(self, sample_rate: int, device: torch.device) -> None:
        half = sample_rate / 2
        filters = mel_filter_bank(WINDOW // 2 + 1, MELS, 0.0, half, sample_rate, "slaney", "slaney")
        self.filters = torch.from_numpy(filters).float().to(device)
        self.hann = torch.hann_window(WINDOW, device=device)

    def __call__(self, audio: Float[Tensor, " s"]) -> Float[Tensor, "t m"]:
        spectrum = torch.stft(audio, WINDOW, WINDOW // 4, window=self.hann, return_complex=True)
        energies = self.filters.T @ spectrum.abs().square()
        return F.avg_pool1d(energies[None], MOMENTS, MOMENTS // 2)[0].mT.clamp(min=FLOOR).log10() / 2
