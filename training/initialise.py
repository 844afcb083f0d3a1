"""Where a TTS training starts: from a CAT-TTS model, or with the language that a Qwen3 model knows."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cat_tts import CatTTS
from cat_tts.config import ChatTokens, SpecialTokens, TransformerConfig, TTSConfig
from cat_tts.text import HuggingFaceText, TextTokenizer, load_text_tokenizer
from tokenizer import checkpoint

SPECIAL = {
    "pad": "<|endoftext|>",
    "audio_start": "<|vision_start|>",
    "audio_end": "<|vision_end|>",
    "slot": "<|video_pad|>",
}
CHAT = {"im_start": "<|im_start|>", "im_end": "<|im_end|>", "user_slot": "<|vision_pad|>"}
"""What the published model took of Qwen3's vocabulary for its own ends; no text becomes them."""
_EXPECTED = {
    "attention_bias": False,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "use_sliding_window": False,
}


def initialise(
    source: str | Path, shape: TTSConfig, num_codebooks: int, codebook_size: int
) -> tuple[CatTTS, TextTokenizer]:
    """A float32 model to train on codes of so many codebooks, and its text tokenizer.

    `source` is a folder or hub id. Of a CAT-TTS model, in this project's layout or the published one, all is
    taken and `shape` means nothing. Of a Qwen3 checkpoint the Temporal Transformer, its shape and the
    embedding of the text are taken; the rest of `shape` is built around them with random weights.
    """
    folder = checkpoint.local_folder(source)
    raw = checkpoint.read_json(folder / checkpoint.CONFIG)
    if raw.get("model_type") == "qwen3":
        try:
            config, text = _config(raw, shape, folder)
        except KeyError as error:
            raise ValueError(f"{folder / checkpoint.CONFIG} of a Qwen3 model lacks {error}") from None
        config = replace(config, num_codebooks=num_codebooks, codebook_size=codebook_size)
        return _from_qwen3(config, checkpoint.read_weights(folder), folder), text
    model, text = CatTTS.from_pretrained(folder)
    spoken, coded = (model.config.num_codebooks, model.config.codebook_size), (num_codebooks, codebook_size)
    if spoken != coded:
        raise ValueError(
            f"{source} speaks {spoken[0]} codebooks of {spoken[1]} codes, but these codes have {coded[0]} of "
            f"{coded[1]}: encode the corpus with the tokenizer of that model"
        )
    return model.float().train(), text


def _config(raw: Mapping[str, Any], shape: TTSConfig, folder: Path) -> tuple[TTSConfig, HuggingFaceText]:
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if rope.get("rope_type", "default") != "default":
        raise ValueError(f"{folder}: rope_type={rope['rope_type']!r}: only unscaled positions can be taken")
    for name, wanted in _EXPECTED.items():
        if raw.get(name, wanted) != wanted:
            raise ValueError(f"{folder}: {name}={raw[name]!r}, but the Temporal Transformer has {wanted!r}")
    text = load_text_tokenizer(folder)
    if not isinstance(text, HuggingFaceText):
        raise ValueError(f"{folder} holds no tokenizer.json: copy it from the Qwen3 model beside the weights")
    if text.vocab_size > raw["vocab_size"]:
        raise ValueError(f"{folder}: the tokenizer has {text.vocab_size} ids, the model {raw['vocab_size']}")
    temporal = TransformerConfig(
        dim=raw["hidden_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=raw["num_attention_heads"],
        num_kv_heads=raw["num_key_value_heads"],
        head_dim=raw["head_dim"],
        ffn_dim=raw["intermediate_size"],
    )
    return replace(
        shape,
        temporal=temporal,
        text_vocab_size=raw["vocab_size"],
        tokens=SpecialTokens(**{name: _id(text, token, folder) for name, token in SPECIAL.items()}),
        chat=shape.chat and ChatTokens(**{name: _id(text, token, folder) for name, token in CHAT.items()}),
        rope_theta=rope.get("rope_theta", raw.get("rope_theta", 1_000_000.0)),
        max_positions=raw["max_position_embeddings"],
    ), text


def _id(text: HuggingFaceText, token: str, folder: Path) -> int:
    ids = text.encode(token)
    if len(ids) != 1:
        raise ValueError(
            f"{folder}: the tokenizer does not know {token}, which stands between text and speech"
        )
    return ids[0]


def _from_qwen3(config: TTSConfig, state: Mapping[str, Tensor], folder: Path) -> CatTTS:
    """Pad codes begin as zeros, so that rows of text are at first just what the checkpoint is used to."""
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
