"""The model that a TTS training starts from: a CAT-TTS model, or the language model of a Qwen3."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cat_tts import CatTTS
from cat_tts.config import ChatTokens, SpecialTokens, TTSConfig
from cat_tts.model import qwen3
from cat_tts.text.tokenizers import HuggingFaceText, TextTokenizer, load_text_tokenizer
from tokenizer.io import checkpoint

SPECIAL = {
    "pad": "<|endoftext|>",
    "audio_start": "<|vision_start|>",
    "audio_end": "<|vision_end|>",
    "slot": "<|video_pad|>",
}
CHAT = {"im_start": "<|im_start|>", "im_end": "<|im_end|>", "user_slot": "<|vision_pad|>"}
"""Tokens of Qwen3's vocabulary that the published model uses for other purposes; no text becomes them."""


def initialize(
    source: str | Path, shape: TTSConfig, num_codebooks: int, codebook_size: int
) -> tuple[CatTTS, TextTokenizer]:
    """Load a float32 model to train on codes of so many codebooks, and its text tokenizer.

    A CAT-TTS model, in this project's layout or the published one, is taken whole and `shape` is ignored. Of
    a Qwen3 checkpoint the Temporal Transformer, its shape and the text embedding are taken; the rest of
    `shape` is built around them with random weights.

    Args:
        source: Folder or hub id.
        shape: Config of what a Qwen3 checkpoint does not have.
        num_codebooks: Codebooks of the codes.
        codebook_size: Codes of each.

    Raises:
        ValueError: the model speaks other codes, or the checkpoint lacks something.
    """
    folder = checkpoint.local_folder(source)
    raw = checkpoint.read_json(folder / checkpoint.CONFIG)
    if qwen3.is_qwen3(raw):
        config, text_tokenizer = _config(qwen3.read(raw, folder), shape, folder)
        config = replace(config, num_codebooks=num_codebooks, codebook_size=codebook_size)
        return _from_qwen3(config, checkpoint.read_weights(folder), folder), text_tokenizer
    model, text_tokenizer = CatTTS.from_pretrained(folder)
    spoken, coded = (model.config.num_codebooks, model.config.codebook_size), (num_codebooks, codebook_size)
    if spoken != coded:
        raise ValueError(
            f"{source} speaks {spoken[0]} codebooks of {spoken[1]} codes, but these codes have {coded[0]} of "
            f"{coded[1]}: encode the corpus with the tokenizer of that model, and --depth {spoken[0]}"
        )
    return model.float().train(), text_tokenizer


def _config(
    trained: qwen3.Qwen3Checkpoint, shape: TTSConfig, folder: Path
) -> tuple[TTSConfig, HuggingFaceText]:
    text_tokenizer = load_text_tokenizer(folder)
    if not isinstance(text_tokenizer, HuggingFaceText):
        raise ValueError(f"{folder} holds no tokenizer.json: copy it from the Qwen3 model beside the weights")
    if text_tokenizer.vocab_size > trained.vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer has {text_tokenizer.vocab_size} ids, the model {trained.vocab_size}"
        )
    return replace(
        shape,
        temporal=trained.shape,
        text_vocab_size=trained.vocab_size,
        tokens=SpecialTokens(**{name: _id(text_tokenizer, token, folder) for name, token in SPECIAL.items()}),
        chat=shape.chat
        and ChatTokens(**{name: _id(text_tokenizer, token, folder) for name, token in CHAT.items()}),
        rope_theta=trained.rope_theta,
        max_positions=trained.max_positions,
    ), text_tokenizer


def _id(text_tokenizer: HuggingFaceText, token: str, folder: Path) -> int:
    ids = text_tokenizer.encode(token)
    if len(ids) != 1:
        raise ValueError(
            f"{folder}: the tokenizer does not know {token}, which stands between text and speech"
        )
    return ids[0]


def _from_qwen3(config: TTSConfig, state: Mapping[str, Tensor], folder: Path) -> CatTTS:
    """Build the model.

    Pad codes begin as zeros, so that rows of text are at first what the checkpoint knows.
    """
    model = CatTTS(config)
    named = {name.removeprefix("model."): tensor.float() for name, tensor in state.items()}
    named.pop("lm_head.weight", None)
    table = named.pop("embed_tokens.weight", None)
    if table is None or table.shape != model.text_embedding.weight.shape:
        found = None if table is None else tuple(table.shape)
        raise ValueError(
            f"{folder}: embed_tokens.weight is {found}, not {tuple(model.text_embedding.weight.shape)} as "
            f"its {checkpoint.CONFIG} says"
        )
    checkpoint.load_weights(model.temporal, named, folder)
    with torch.no_grad():
        model.text_embedding.weight.copy_(table)
        for embedding in model.code_embeddings:
            embedding.weight[config.pad_code].zero_()
    return model.train()
