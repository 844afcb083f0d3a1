"""Adaptation of the TTS model to one speaker: a few training steps on the prompt.

A large model takes a voice from its context alone. A small model notices that the speaker is new and does not
reproduce enough of the voice; it comes nearer when its layers are trained on the prompt for a second or two.
"""

import copy

import torch

from cat_tts import CatTTS
from cat_tts.sequences.formats import build_example
from cat_tts.text.tokenizers import TextTokenizer
from inference.synthesis.synthesizer import Synthesizer
from inference.voices.voice import Voice

TOTAL_LEARNING_RATE, MOMENTUM = 0.01, 0.9
"""Steps times learning rate of Muon, whose steps change all directions of a matrix equally: Adam's steps
approach the voice as well, but lose words. With twice this total, other sentences of the speaker become less
likely; five steps approach the voice as well as ten."""
MAX_STEPS = 1000


def adapt_to_speaker(
    synthesizer: Synthesizer, voice: Voice, steps: int, total_learning_rate: float = TOTAL_LEARNING_RATE
) -> Synthesizer:
    """Adapt a copy of the TTS model to the prompt of a voice.

    The TTS model is copied, in float32 during training. Only the matrices in the layers of both Transformers
    are trained, by the codes of the prompt alone: embeddings, heads and norms stay as they were, and the stop
    decision is not trained. The tokenizer and the cached prompts are shared.

    Args:
        synthesizer: The unadapted models; they are not changed.
        voice: The voice with its transcript.
        steps: Number of training steps; more steps are smaller ones, with the same sum.
        total_learning_rate: Number of steps times learning rate.

    Returns:
        A synthesizer with the adapted copy of the model.

    Raises:
        ValueError: an impossible number of steps, a prompt without text, or a voice of another model.
    """
    check_adaptation_steps(steps)
    if steps == 0:
        raise ValueError("0 steps leave the model as it is, and a decoder is adapted without: give 1 or more")
    voice = synthesizer.voice(voice)
    if not voice.text.strip():
        raise ValueError("a model is adapted to a voice by what its prompt says: give the prompt's text")
    with torch.inference_mode(False), torch.enable_grad():
        model = copy.deepcopy(synthesizer.tts).float()
        _train(model, synthesizer.text_tokenizer, voice, steps, total_learning_rate / steps)
    parts = (
        model.to(synthesizer.dtype),
        synthesizer.text_tokenizer,
        synthesizer.tokenizer,
        synthesizer.sampling,
    )
    adapted = Synthesizer(*parts, weights=synthesizer.weights, asr_model=synthesizer.asr_model)
    adapted.voices = synthesizer.voices
    return adapted


def check_adaptation_steps(steps: int) -> None:
    """Raise ValueError for an impossible number of steps."""
    if not 0 <= steps <= MAX_STEPS:
        raise ValueError(
            f"{steps} steps to adapt the model to a voice: give 0 for the decoder alone, up to {MAX_STEPS}"
        )


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
    optimizer = torch.optim.Muon(
        matrices, rate, weight_decay=0, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(steps):
        optimizer.zero_grad()
        model(rows, None, targets, depth, row_positions).codes.backward()
        optimizer.step()
    model.requires_grad_(False)
