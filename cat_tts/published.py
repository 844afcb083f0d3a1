"""The layout of the published MOSS-TTS-Local-Transformer v1.0: config and tensor names, both ways."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cat_tts.config import ChatTokens, SpecialTokens, TransformerConfig, TTSConfig
from tokenizer.checkpoint import CheckpointError

_PREFIXES = {
    "text_embedding.": "model.embedding_list.0.",
    "temporal.": "model.language_model.",
    "depth.adapter_in.": "speech_embedding_to_local_mlp.",
    "depth.layers.": "local_transformer.layers.",
    "depth.norm.": "local_transformer.norm.",
    "depth.adapters.": "local_to_speech_embedding_mlps.",
    "depth.head_norms.": "layer_norm_before_lm_heads.",
    "depth.decision_head.": "lm_heads.0.",
}
_SHIFTED = {"code_embeddings.": "model.embedding_list.", "depth.code_heads.": "lm_heads."}
"""Lists that begin at 0 here and at 1 there, behind the text channel."""
_UNUSED = "model.language_model.embed_tokens.weight"
"""Stored in the published files, but no row is ever looked up in it."""


def is_published(raw: Mapping[str, Any]) -> bool:
    """Whether a config.json is of the published TTS family."""
    return "language_config" in raw or str(raw.get("model_type", "")).startswith("moss_tts")


def config_from_published(raw: Mapping[str, Any]) -> TTSConfig:
    """This project's config from a published v1.0 config.json."""
    try:
        return _config(raw)
    except KeyError as error:
        raise CheckpointError(f"config.json of a published TTS model lacks {error}") from None


def _config(raw: Mapping[str, Any]) -> TTSConfig:
    if "local_num_layers" not in raw or "language_config" not in raw:
        raise CheckpointError(
            f"model_type={raw.get('model_type')!r} without local_num_layers: of the published models only "
            "MOSS-TTS-Local-Transformer v1.0 can be loaded, not the Delay or v1.5 models"
        )
    language = raw["language_config"]
    heads = {
        "num_heads": language["num_attention_heads"],
        "num_kv_heads": language["num_key_value_heads"],
        "head_dim": language["head_dim"],
    }
    rope = language.get("rope_parameters") or language
    if raw["audio_pad_code"] != raw["audio_vocab_size"]:
        raise CheckpointError(
            f"audio_pad_code={raw['audio_pad_code']} must be audio_vocab_size={raw['audio_vocab_size']}"
        )
    return TTSConfig(
        temporal=TransformerConfig(
            dim=language["hidden_size"],
            num_layers=language["num_hidden_layers"],
            ffn_dim=language["intermediate_size"],
            **heads,
        ),
        depth=TransformerConfig(
            dim=raw["local_hidden_size"],
            num_layers=raw["local_num_layers"],
            ffn_dim=raw["local_ffn_hidden_size"],
            **heads,
        ),
        text_vocab_size=language["vocab_size"],
        num_codebooks=raw["n_vq"],
        codebook_size=raw["audio_vocab_size"],
        tokens=SpecialTokens(
            pad=raw["pad_token_id"],
            audio_start=raw["audio_start_token_id"],
            audio_end=raw["audio_end_token_id"],
            slot=raw["audio_assistant_gen_slot_token_id"],
        ),
        chat=ChatTokens(
            im_start=raw["im_start_token_id"],
            im_end=raw["im_end_token_id"],
            user_slot=raw["audio_user_slot_token_id"],
        ),
        adapter_dim=raw["additional_mlp_ffn_hidden_size"],
        full_text_head=True,
        rope_theta=rope.get("rope_theta", 1_000_000.0),
        max_positions=language["max_position_embeddings"],
    )


def state_from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under this project's names; the table that nothing reads is left out."""
    return {_our_name(name): value for name, value in state.items() if name != _UNUSED}


def state_to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the published names, the unread table filled with the text embedding."""
    named = {_published_name(name): value for name, value in state.items()}
    return {**named, _UNUSED: state["text_embedding.weight"]}


def _published_name(name: str) -> str:
    for ours, theirs in _SHIFTED.items():
        if name.startswith(ours):
            index, rest = name.removeprefix(ours).split(".", 1)
            return f"{theirs}{int(index) + 1}.{rest}"
    for ours, theirs in _PREFIXES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise CheckpointError(f"tensor {name!r} has no published name")


def _our_name(name: str) -> str:
    for ours, theirs in _PREFIXES.items():  # first: they hold the two lists' elements 0
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    for ours, theirs in _SHIFTED.items():
        if name.startswith(theirs):
            index, rest = name.removeprefix(theirs).split(".", 1)
            return f"{ours}{int(index) - 1}.{rest}"
    raise CheckpointError(f"tensor {name!r} is not one of a MOSS-TTS-Local-Transformer v1.0")
