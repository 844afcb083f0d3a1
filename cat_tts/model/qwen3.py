"""The Qwen3 in both models: built from a shape, or from the config.json of a trained one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3Model
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from cat_tts.config import TransformerConfig
from tokenizer.io import checkpoint

_EXPECTED = {
    "attention_bias": False,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "use_sliding_window": False,
}


class Rotary(Qwen3RotaryEmbedding):
    """Rotary embedding whose frequencies stay float32 in a model of half precision.

    Rounded to bfloat16 they are off by a thousandth, at row 1000 by a radian.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Rotary":
        exact = cast("Tensor", self.inv_freq)
        super()._apply(fn, recurse)
        exact = exact.to(cast("Tensor", self.inv_freq).device)
        self.register_buffer("inv_freq", exact, persistent=False)
        return self


def build(
    shape: TransformerConfig, *, rope_theta: float, max_positions: int, attention: str | None = None
) -> Qwen3Model:
    """Build a Qwen3 with random weights, and without an embedding table: rows are embedded outside.

    Args:
        shape: Shape of the layers.
        rope_theta: Base of the rotary frequencies.
        max_positions: Longest sequence.
        attention: Name of an attention function in transformers; None lets it choose.
    """
    model = Qwen3Model(
        Qwen3Config(
            vocab_size=1,
            hidden_size=shape.dim,
            num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_heads,
            num_key_value_heads=shape.num_kv_heads,
            head_dim=shape.head_dim,
            intermediate_size=shape.ffn_dim,
            max_position_embeddings=max_positions,
            rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
            rms_norm_eps=_EXPECTED["rms_norm_eps"],
            attn_implementation=attention,  # pyright: ignore[reportCallIssue]
        )
    )
    model.embed_tokens = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    compute_rotary(model)
    return model


def compute_rotary(model: Qwen3Model) -> None:
    """Compute the rotary frequencies of a model on the meta device: they are not stored with its weights."""
    model.rotary_emb = Rotary(model.config)


@dataclass(frozen=True, kw_only=True)
class Qwen3Checkpoint:
    """What the config.json of a trained Qwen3 says."""

    shape: TransformerConfig
    vocab_size: int
    tied: bool
    rope_theta: float
    max_positions: int


def is_qwen3(raw: Mapping[str, Any]) -> bool:
    """Return whether a config.json is that of a Qwen3."""
    return raw.get("model_type") == "qwen3"


def read(raw: Mapping[str, Any], folder: Path) -> Qwen3Checkpoint:
    """Read the config.json of a Qwen3.

    Args:
        raw: Content of the file.
        folder: Its folder, for messages.

    Raises:
        ValueError: `build` cannot build such a model, or a key is missing.
    """
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))  # the older name
    if kind != "default":
        raise ValueError(f"{folder}: rope_type={kind!r}: only unscaled positions can be taken")
    for name, wanted in _EXPECTED.items():
        if raw.get(name, wanted) != wanted:
            raise ValueError(f"{folder}: {name}={raw[name]!r}, but the models here have {wanted!r}")
    try:
        return Qwen3Checkpoint(
            shape=shape_of(raw),
            vocab_size=raw["vocab_size"],
            tied=raw.get("tie_word_embeddings", False),
            rope_theta=rope.get("rope_theta", raw.get("rope_theta", 1_000_000.0)),
            max_positions=raw["max_position_embeddings"],
        )
    except KeyError as error:
        raise ValueError(f"{folder / checkpoint.CONFIG} of a Qwen3 model lacks {error}") from None


def shape_of(raw: Mapping[str, Any]) -> TransformerConfig:
    """Read the shape of the layers from a config.json; KeyError where a part is missing."""
    return TransformerConfig(
        dim=raw["hidden_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=raw["num_attention_heads"],
        num_kv_heads=raw["num_key_value_heads"],
        head_dim=raw["head_dim"],
        ffn_dim=raw["intermediate_size"],
    )
