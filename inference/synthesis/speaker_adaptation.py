"""Adaptation of the TTS model to one speaker: a few training steps on the prompt.

A large model takes a voice from its context alone. A small model notices that the speaker is new and does not
reproduce enough of the voice; it comes nearer when its layers are trained on the prompt for a second or two.
"""

import copy
from typing import TypeVar

import torch

from cat_tts import CatTTS
from cat_tts.muon import Muon
from cat_tts.sequences.formats import build_example
from cat_tts.text.tokenizers import TextTokenizer
from inference.engine.options import MAX_ADAPT_STEPS
from inference.synthesis.models import SpeechModels
from inference.voices.voice import Voice

TOTAL_LEARNING_RATE, MOMENTUM = 0.01, 0.9
"""Steps times learning rate of Muon, whose steps change all directions of a matrix equally: Adam's steps
approach the voice as well, but lose words. With twice this total, other sentences of the speaker become less
likely; five steps approach the voice as well as ten."""


Models = TypeVar("Models", bound=SpeechModels)


def adapt_to_speaker(
    models: Models, voice: Voice, steps: int, total_learning_rate: float = TOTAL_LEARNING_RATE
) -> Models:
    """Adapt a copy of the TTS model to the prompt of a voice.

    The TTS model is copied, in float32 during training. Only the matrices in the layers of both Transformers
    are trained, by the codes of the prompt alone: embeddings, heads and norms stay as they were, and the stop
    decision is not trained. The tokenizer and the cached prompts are shared.

    Args:
        models: The unadapted models; they are not changed.
        voice: The voice with its transcript.
        steps: Number of training steps; more steps are smaller ones, with the same sum.
        total_learning_rate: Number of steps times learning rate.

    Returns:
        The same with the adapted copy of the model.

    Raises:
        ValueError: an impossible number of steps, a prompt without text, or a voice of another model.
    """
    if not 1 <= steps <= MAX_ADAPT_STEPS:
        raise ValueError(f"{steps} steps to adapt the model to a voice: give 1 to {MAX_ADAPT_STEPS}")
    voice = models.voices.validate(voice)
    if not voice.text.strip():
        raise ValueError("a model is adapted to a voice by what its prompt says: give the prompt's text")
    with torch.inference_mode(False), torch.enable_grad():
        model = copy.deepcopy(models.tts).float()
        _train(model, models.text_tokenizer, voice, steps, total_learning_rate / steps)
    parts = model.to(models.dtype), models.text_tokenizer, models.tokenizer, models.sampling
    adapted = type(models)(*parts, weights=models.weights, asr_model=models.asr_model)
    adapted.voices, adapted.adapted_to = models.voices, (voice.key, voice.text, steps)
    return adapted


def _train(model: CatTTS, text_tokenizer: TextTokenizer, voice: Voice, steps: int, rate: float) -> None:
    config, device = model.config, model.text_embedding.weight.device
    codes = voice.codes.long().clone()  # a clone leaves inference mode
    example = build_example(config, text_tokenizer, voice.text, codes)
    rows, targets, row_positions = (part[None].to(device) for part in example)
    depth = torch.full((1,), config.num_codebooks, device=device)
    model.requires_grad_(False)
    matrices = [
        weight for name, weight in model.named_parameters() if ".layers." in name and weight.ndim == 2
    ]
    for matrix in matrices:
        matrix.requires_grad_(True)
    optimizer = Muon(matrices, rate, weight_decay=0.0, momentum=MOMENTUM)
    for _ in range(steps):
        optimizer.zero_grad()
        model(rows, None, targets, depth, row_positions).codes.backward()
        optimizer.step()
    model.requires_grad_(False)
