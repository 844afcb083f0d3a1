"""What a TTS model of a run's own reads, and how long the tokens of it take to be spoken."""

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


def own_text(run: Path, kind: Kind, codes: Codes, vocab_size: int) -> TextTokenizer:
    """The tokenizer that the run began with, or a new one of all texts; `vocab_size` is that of pieces."""
    if (run / FILES[kind]).exists():
        return load_text_tokenizer(run)
    if kind == "phonemes":
        return collect_phonemes(codes["text"][:])
    with TemporaryDirectory() as folder:
        return train_sentencepiece(codes["text"][:], Path(folder) / SENTENCEPIECE_FILE, vocab_size)


def keep_text(text: TextTokenizer, run: Path, kind: Kind) -> None:
    """Write it beside the run's settings, for those who continue the run; once."""
    if (run / FILES[kind]).exists():
        return
    with TemporaryDirectory(dir=run) as folder:
        text.save(folder)
        os.replace(Path(folder) / FILES[kind], run / FILES[kind])


def text_frames(config: TTSConfig, text: TextTokenizer, codes: Codes) -> tuple[float, ...] | None:
    """For models on whose time axis texts stand: `TTSConfig.text_frames` as the codes show them."""
    if not config.shared_time:
        return None
    ids = [text.encode(one) for one in codes["text"][:]]
    return usual_frames(ids, codes["frames"][:], codes["speaker"][:], text.vocab_size)


def retold(model: CatTTS, text: TextTokenizer, frames: tuple[float, ...] | None) -> CatTTS:
    """`model`, in place, with another text tokenizer: what it knows of speech stays, text is new to it."""
    own = SpecialTokens(pad=PAD_ID, audio_start=AUDIO_START_ID, audio_end=AUDIO_END_ID, slot=SLOT_ID)
    if model.config.tokens != own or model.config.full_text_head:
        raise ValueError("new_text: this model begins with Qwen3 and reads its tokens; leave them to it")
    old = model.text_embedding
    model.config = replace(model.config, text_vocab_size=text.vocab_size, text_frames=frames)
    model.text_embedding = nn.Embedding(text.vocab_size, old.embedding_dim)
    with torch.no_grad():
        model.text_embedding.weight.normal_(std=float(old.weight[SPECIAL_IDS:].std()))
        model.text_embedding.weight[:SPECIAL_IDS] = old.weight[:SPECIAL_IDS]
    return model
