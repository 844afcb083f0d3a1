"""The text tokenizer of a run, and the durations of its tokens."""

import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from torch import nn

from cat_tts import CatTTS, TTSConfig
from cat_tts.config import SpecialTokens
from cat_tts.text.phonemes import PHONEMES_FILE, collect_phonemes
from cat_tts.text.special_tokens import AUDIO_END_ID, AUDIO_START_ID, PAD_ID, SLOT_ID, SPECIAL_IDS
from cat_tts.text.tokenizers import (
    SENTENCEPIECE_FILE,
    TextTokenizer,
    load_text_tokenizer,
    train_sentencepiece,
)
from training.data.code_shards import Codes
from training.tts.token_durations import usual_frames

Kind = Literal["pieces", "phonemes"]
FILES: dict[Kind, str] = {"pieces": SENTENCEPIECE_FILE, "phonemes": PHONEMES_FILE}


def build_text_tokenizer(run: Path, kind: Kind, codes: Codes, vocab_size: int) -> TextTokenizer:
    """Load the text tokenizer that the run began with, or build one of all texts.

    Args:
        run: Folder of the run.
        kind: What a new one splits texts into.
        codes: The shards, with their texts.
        vocab_size: Size of the vocabulary of pieces.
    """
    if (run / FILES[kind]).exists():
        return load_text_tokenizer(run)
    if kind == "phonemes":
        return collect_phonemes(codes["text"][:])
    with TemporaryDirectory() as folder:
        return train_sentencepiece(codes["text"][:], Path(folder) / SENTENCEPIECE_FILE, vocab_size)


def save_text_tokenizer(text_tokenizer: TextTokenizer, run: Path, kind: Kind) -> None:
    """Write a text tokenizer beside the run's settings, for a resume, unless it is there."""
    if (run / FILES[kind]).exists():
        return
    with TemporaryDirectory(dir=run) as folder:
        text_tokenizer.save(folder)
        os.replace(Path(folder) / FILES[kind], run / FILES[kind])


def token_durations(
    config: TTSConfig, text_tokenizer: TextTokenizer, codes: Codes
) -> tuple[float, ...] | None:
    """Estimate `TTSConfig.token_durations`, in frames; None for models without time-aligned positions."""
    if not config.time_aligned_positions:
        return None
    ids = [text_tokenizer.encode(text) for text in codes["text"][:]]
    return usual_frames(ids, codes["frames"][:], codes["speaker"][:], text_tokenizer.vocab_size)


def replace_text_tokenizer(
    model: CatTTS, text_tokenizer: TextTokenizer, durations: tuple[float, ...] | None
) -> CatTTS:
    """Give a model, in place, untrained text embeddings for another text tokenizer.

    Args:
        model: A model with a text tokenizer of this project.
        text_tokenizer: The new text tokenizer.
        durations: Frames of each of its tokens, for models with time-aligned positions.

    Returns:
        `model`.

    Raises:
        ValueError: the model reads Qwen3's tokens.
    """
    ours = SpecialTokens(pad=PAD_ID, audio_start=AUDIO_START_ID, audio_end=AUDIO_END_ID, slot=SLOT_ID)
    if model.config.tokens != ours or model.config.full_text_head:
        raise ValueError("new_text: this model begins with Qwen3 and reads its tokens; leave them to it")
    old = model.text_embedding
    model.config = replace(model.config, text_vocab_size=text_tokenizer.vocab_size, token_durations=durations)
    model.text_embedding = nn.Embedding(text_tokenizer.vocab_size, old.embedding_dim)
    with torch.no_grad():
        model.text_embedding.weight.normal_(std=float(old.weight[SPECIAL_IDS:].std()))
        model.text_embedding.weight[:SPECIAL_IDS] = old.weight[:SPECIAL_IDS]
    return model
