"""A model tuned to one voice: some steps of training on what is known of it, its prompt.

A large model takes a voice from its context alone. A small one hears that somebody else speaks, and does not
say enough of it; it comes nearer when its layers are trained on the prompt for a second or two. What codes
do not say of a timbre, the last projection of a decoder that ends in a vocoder learns to add.
"""

import copy
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from cat_tts import CatTTS
from cat_tts.rows import example_rows
from cat_tts.sequence import positions, shifted_targets, speaking_pace
from cat_tts.text import TextTokenizer
from inference.synthesizer import Synthesizer
from inference.voice import Voice
from tokenizer import AudioTokenizer
from tokenizer.discriminators import Discriminators, generator_loss
from tokenizer.vocoder import Vocoder

REACH, MOMENTUM = 0.01, 0.9
"""Steps times learning rate of Muon, whose steps change all directions of a matrix as much: Adam's, which
come as near to the voice, lose words. With twice that reach, other sentences of the speaker become less
likely; five steps come as near as ten."""
MOST_STEPS = 1000
TIMBRE_STEPS, TIMBRE_RATE = 10, 2e-3
"""Of Adam, for the projection; 25 of them bring little more."""
WINDOW, MELS, MOMENTS, FLOOR = 1024, 64, 4, 1e-10
"""Of the spectrograms in which timbres are compared: energies of several moments together, as a decoder that
shall meet the noise of each moment gives noise up, and buzzes."""
JUDGED, JUDGED_SECONDS = 0.05, 1
"""Weight of the judge, beside the distance of spectrograms, and how much it hears in a step."""


def tuned(synthesizer: Synthesizer, voice: Voice, steps: int, reach: float = REACH) -> Synthesizer:
    """A synthesizer of its own model, which has made `steps` on the prompt of `voice`, and own decoder.

    The more steps, the finer they are: together they reach as far. From one step on the TTS model is
    copied, in float32 while it is trained. What is tuned are the matrices in the layers of both Transformers,
    by codes of the prompt alone: tables, heads and norms stay as they were, and what ends a take is not
    taught.

    Of a decoder that ends in a vocoder the last projection is tuned in any case, so that codes of the prompt
    sound like the recording, and like speech where the model brings a judge; what a take says stays as it
    was. It takes a voice that was made of a recording; a `.catvoice` file holds none. The rest of the
    tokenizer is shared.

    Raises:
        ValueError: steps that cannot be, or for which there is nothing to tune or no text; a voice of another
            model.
    """
    check_steps(steps)
    voice = synthesizer.voice(voice)
    if steps and not voice.text.strip():
        raise ValueError("a model is tuned to a voice by what its prompt says: give the prompt's text")
    model, tokenizer = synthesizer.tts, synthesizer.tokenizer
    timbre = takes_timbre(synthesizer, voice)
    if not steps and not timbre:
        raise ValueError(
            "0 steps tune the decoder alone, to a recording (a .catvoice file is none) and where it ends in "
            "a vocoder: give 1 step or more, for the model"
        )
    with torch.inference_mode(False), torch.enable_grad():
        if steps:
            model = copy.deepcopy(model).float()
            _train(model, synthesizer.text, voice, steps, reach / steps)
        if timbre and voice.audio is not None:
            tokenizer = _in_its_timbre(tokenizer, voice.codes, voice.audio, synthesizer.judge)
    return Synthesizer(
        model.to(synthesizer.dtype),
        synthesizer.text,
        tokenizer,
        synthesizer.sampling,
        synthesizer.voices.load_encoder,
        weights=synthesizer.weights,
        listener=synthesizer.listener,
        judge=synthesizer.judge,
    )


def takes_timbre(synthesizer: Synthesizer, voice: Voice) -> bool:
    """Whether there is a recording that the decoder can be tuned to."""
    return voice.audio is not None and synthesizer.tokenizer.vocoder is not None


def check_steps(steps: int) -> None:
    """Raise ValueError for a number that is none of steps."""
    if not 0 <= steps <= MOST_STEPS:
        raise ValueError(
            f"{steps} steps to tune the model to a voice: give 0 for the decoder alone, up to {MOST_STEPS}"
        )


def _train(model: CatTTS, text: TextTokenizer, voice: Voice, steps: int, rate: float) -> None:
    config, device = model.config, model.text_embedding.weight.device
    codes = voice.codes.long().clone()  # which leaves inference mode
    sequence = example_rows(config, text, voice.text, codes)
    pace = speaking_pace(config, text.encode(voice.text), len(codes))
    rows, targets = sequence[None, :-1].to(device), shifted_targets(config, sequence[None]).to(device)
    places = positions(config, sequence[:-1], pace)[None].to(device)
    depth = torch.full((1,), config.num_codebooks, device=device)
    model.requires_grad_(False)
    matrices = [one for name, one in model.named_parameters() if ".layers." in name and one.ndim == 2]
    for matrix in matrices:
        matrix.requires_grad_(True)
    optimizer = torch.optim.Muon(
        matrices, rate, weight_decay=0, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(steps):
        optimizer.zero_grad()
        model(rows, None, targets, depth, places).codes.backward()
        optimizer.step()
    model.requires_grad_(False)


def _in_its_timbre(
    tokenizer: AudioTokenizer,
    codes: Int[Tensor, "t k"],
    audio: Float[Tensor, " s"],
    judge: Discriminators | None,
) -> AudioTokenizer:
    """A tokenizer whose decoder makes of `codes` what has the spectra of `audio`; the pitch that it draws
    stays."""
    *earlier, last = tokenizer.decoder
    shared = tokenizer.encoder, tokenizer.quantizer, *earlier, last.project_in, last.layers
    own = copy.deepcopy(tokenizer, {id(part): part for part in shared})
    stage = own.decoder[-1]
    projection, stage.project_out = cast(nn.Linear, stage.project_out), nn.Identity()
    device = projection.weight.device
    with torch.no_grad():
        before = own.controls(own.quantizer.decode(codes.long().clone()[None].to(device)))
    stage.project_out = projection.requires_grad_(True)
    spectrogram = _Spectrogram(own.config.sample_rate, device)
    wanted = spectrogram(audio.clone().to(device))
    optimizer = torch.optim.Adam(projection.parameters(), TIMBRE_RATE)
    for step in range(TIMBRE_STEPS):
        optimizer.zero_grad()
        made = cast(Vocoder, own.vocoder)(projection(before))[0, : len(audio)]
        loss = (spectrogram(made) - wanted).abs().mean()
        if judge is not None:
            loss = loss + JUDGED * generator_loss(judge(_part(made, own.config.sample_rate, step)[None]))
        loss.backward()
        optimizer.step()
    projection.requires_grad_(False)
    return own


def _part(audio: Float[Tensor, " s"], sample_rate: int, step: int) -> Float[Tensor, " p"]:
    """What is judged of `audio` in this step: one part after the other, and then again."""
    length = min(JUDGED_SECONDS * sample_rate, len(audio))
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
