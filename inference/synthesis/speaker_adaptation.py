"""A model tuned to one voice: some steps of training on what is known of it, its prompt.

A large model takes a voice from its context alone. A small one hears that somebody else speaks, and does not
say enough of it; it comes nearer when its layers are trained on the prompt for a second or two.
"""

import copy

import torch

from cat_tts import CatTTS
from cat_tts.sequences.formats import example_rows
from cat_tts.sequences.rows import positions, shifted_targets, speaking_pace
from cat_tts.text.tokenizers import TextTokenizer
from inference.synthesis.synthesizer import Synthesizer
from inference.voices.voice import Voice

REACH, MOMENTUM = 0.01, 0.9
"""Steps times learning rate of Muon, whose steps change all directions of a matrix as much: Adam's, which
come as near to the voice, lose words. With twice that reach, other sentences of the speaker become less
likely; five steps come as near as ten."""
MOST_STEPS = 1000


def tuned(synthesizer: Synthesizer, voice: Voice, steps: int, reach: float = REACH) -> Synthesizer:
    """A synthesizer of its own model, which has made `steps` on the prompt of `voice`.

    The more steps, the finer they are: together they reach as far. The TTS model is copied, in float32 while
    it is trained. What is tuned are the matrices in the layers of both Transformers, by codes of the prompt
    alone: tables, heads and norms stay as they were, and what ends a take is not taught. The tokenizer, and
    what is known of voices, are shared.

    Raises:
        ValueError: steps that cannot be, or a prompt without text; a voice of another model.
    """
    check_steps(steps)
    if steps == 0:
        raise ValueError("0 steps leave the model as it is, and a decoder is tuned without: give 1 or more")
    voice = synthesizer.voice(voice)
    if not voice.text.strip():
        raise ValueError("a model is tuned to a voice by what its prompt says: give the prompt's text")
    with torch.inference_mode(False), torch.enable_grad():
        model = copy.deepcopy(synthesizer.tts).float()
        _train(model, synthesizer.text, voice, steps, reach / steps)
    parts = model.to(synthesizer.dtype), synthesizer.text, synthesizer.tokenizer, synthesizer.sampling
    own = Synthesizer(*parts, weights=synthesizer.weights, listener=synthesizer.listener)
    own.voices = synthesizer.voices
    return own


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
