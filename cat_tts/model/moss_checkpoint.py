"""The layout of the published MOSS-TTS-Local-Transformer v1.0: config and tensor names, both ways."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from cat_tts.config import ChatTokens, SpecialTokens, TTSConfig
from cat_tts.model.qwen3 import shape_of
from tokenizer.io.checkpoint import CheckpointError

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
_DELAY_SLOT = 151_662
"""An id that only the family's Delay models put into sequences, though all their configs have it."""


def is_published(raw: Mapping[str, Any]) -> bool:
    """Return whether a config.json is of the published TTS family."""
    return "language_config" in raw or str(raw.get("model_type", "")).startswith("moss_tts")


def config_from_published(raw: Mapping[str, Any]) -> TTSConfig:
    """Convert a published v1.0 config.json to this project's config.

    Raises:
        CheckpointError: It is of another model of the family, or lacks a key.
    """
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
    temporal = shape_of(language)
    rope = language.get("rope_parameters") or language
    if raw["audio_pad_code"] != raw["audio_vocab_size"]:
        raise CheckpointError(
            f"audio_pad_code={raw['audio_pad_code']} must be audio_vocab_size={raw['audio_vocab_size']}"
        )
    return TTSConfig(
        temporal=temporal,
        depth=replace(
            temporal,
            dim=raw["local_hidden_size"],
            num_layers=raw["local_num_layers"],
            ffn_dim=raw["local_ffn_hidden_size"],
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


def config_to_published(config: TTSConfig) -> dict[str, Any]:
    """Convert a config to the published config.json.

    `max_prompt_frames` has no place there: the published models take prompts of any length.

    Raises:
        ValueError: The published layout cannot hold the model; the message names the reasons.
    """
    if reasons := unpublishable(config):
        raise ValueError(f"the published layout cannot hold this model: {'; '.join(reasons)}")
    assert config.chat is not None
    shape, depth, tokens = config.temporal, config.depth, config.tokens
    return {
        "architectures": ["MossTTSDelayModel"],
        "model_type": "moss_tts_delay",
        "n_vq": config.num_codebooks,
        "audio_vocab_size": config.codebook_size,
        "audio_pad_code": config.pad_code,
        "sampling_rate": 24_000,
        "pad_token_id": tokens.pad,
        "im_start_token_id": config.chat.im_start,
        "im_end_token_id": config.chat.im_end,
        "audio_start_token_id": tokens.audio_start,
        "audio_end_token_id": tokens.audio_end,
        "audio_user_slot_token_id": config.chat.user_slot,
        "audio_assistant_gen_slot_token_id": tokens.slot,
        "audio_assistant_delay_slot_token_id": _DELAY_SLOT,
        "additional_mlp_ffn_hidden_size": config.adapter_dim,
        "local_hidden_size": depth.dim,
        "local_ffn_hidden_size": depth.ffn_dim,
        "local_num_layers": depth.num_layers,
        "hidden_size": shape.dim,
        "vocab_size": config.text_vocab_size,
        "initializer_range": 0.02,
        "language_config": {
            "model_type": "qwen3",
            "vocab_size": config.text_vocab_size,
            "hidden_size": shape.dim,
            "intermediate_size": shape.ffn_dim,
            "num_hidden_layers": shape.num_layers,
            "num_attention_heads": shape.num_heads,
            "num_key_value_heads": shape.num_kv_heads,
            "head_dim": shape.head_dim,
            "hidden_act": "silu",
            "attention_bias": False,
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": config.max_positions,
            "rope_theta": config.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
            "tie_word_embeddings": True,
        },
    }


def unpublishable(config: TTSConfig) -> list[str]:
    """List the reasons why the published layout cannot hold a model; empty where it can."""
    temporal, depth = config.temporal, config.depth
    heads = {
        "num_heads": (temporal.num_heads, depth.num_heads),
        "num_kv_heads": (temporal.num_kv_heads, depth.num_kv_heads),
        "head_dim": (temporal.head_dim, depth.head_dim),
    }
    reasons = {
        "time_aligned_positions puts text rows on the time axis of the frames": config.time_aligned_positions,
        "chat=None: it was not trained on conversations": config.chat is None,
        "full_text_head=False: its stop head has two rows": not config.full_text_head,
        "adapter_dim=None: it has no MLPs around the depth layers": config.adapter_dim is None,
        "speaker_dim: it reads voice vectors": config.speaker_dim is not None,
    }
    differing = {
        f"{name} is {outer} in the temporal and {inner} in the depth layers": outer != inner
        for name, (outer, inner) in heads.items()
    }
    return [reason for reason, holds in {**reasons, **differing}.items() if holds]


def state_from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename published weights to this project's names; the table that nothing reads is left out.

    Raises:
        CheckpointError: A name is not one of the published model.
    """
    return {_our_name(name): value for name, value in state.items() if name != _UNUSED}


def state_to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights to the published names; the unread table is filled with the text embedding.

    Raises:
        CheckpointError: A weight has no published name.
    """
    named = {_published_name(name): value for name, value in state.items()}
    return {**named, _UNUSED: state["text_embedding.weight"].clone()}


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
