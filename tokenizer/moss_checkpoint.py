"""The published MOSS-Audio-Tokenizer (v1) layout: its config fields and tensor names, both ways."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizer.config import QuantizerConfig, StageConfig, TokenizerConfig
from tokenizer.io.checkpoint import CheckpointError

_LAYER = {
    "attention_norm.": "norm1.",
    "qkv.weight": "self_attn.in_projs.0.weight",
    "attention_out.weight": "self_attn.out_projs.0.weight",
    "attention_scale": "layer_scale_1.scale",
    "ffn_norm.": "norm2.",
    "ffn_in.": "linear1.",
    "ffn_out.": "linear2.",
    "ffn_scale": "layer_scale_2.scale",
}
_OLDER_NAMES = {
    "self_attn.in_proj_weight": "self_attn.in_projs.0.weight",
    "self_attn.in_proj.weight": "self_attn.in_projs.0.weight",
    "self_attn.out_proj.weight": "self_attn.out_projs.0.weight",
}
_EXPECTED = {
    "causal": True,
    "norm": "layer_norm",
    "positional_embedding": "rope",
    "gating": "none",
}


def is_published(raw: Mapping[str, Any]) -> bool:
    """Return whether a config.json is one of the published tokenizer's."""
    return "encoder_kwargs" in raw and "quantizer_kwargs" in raw


def config_from_published(raw: Mapping[str, Any]) -> TokenizerConfig:
    """Convert a published config.json to this project's config; what that cannot express is refused by name.

    Args:
        raw: The published JSON object.

    Returns:
        The config.

    Raises:
        CheckpointError: If a field is missing, or its value is not supported.
    """
    try:
        return _config(raw)
    except KeyError as error:
        raise CheckpointError(f"config.json of a published tokenizer lacks {error}") from None


def _config(raw: Mapping[str, Any]) -> TokenizerConfig:
    quantizer = raw["quantizer_kwargs"]
    kind = quantizer.get("quantizer_type", raw.get("quantizer_type"))
    if kind != "rlfq":
        raise CheckpointError(f"quantizer_type={kind!r} is not supported; the published models use 'rlfq'")
    if quantizer["input_dim"] != raw["code_dim"] or quantizer["output_dim"] != raw["code_dim"]:
        raise CheckpointError(f"quantizer input_dim and output_dim must be code_dim={raw['code_dim']}")
    encoder = _stages(raw["encoder_kwargs"], patch_first=True)
    decoder = _stages(raw["decoder_kwargs"], patch_first=False)
    modules = raw["encoder_kwargs"] + raw["decoder_kwargs"]
    transformers = [module for module in modules if module["module_type"] == "Transformer"]
    if len({module["max_period"] for module in transformers}) != 1:
        raise CheckpointError("the stages differ in max_period: only one for all is supported")
    return TokenizerConfig(
        encoder=encoder,
        decoder=decoder,
        quantizer=QuantizerConfig(
            num_codebooks=quantizer["num_quantizers"],
            codebook_size=quantizer["codebook_size"],
            codebook_dim=quantizer["codebook_dim"],
            dim=quantizer["rvq_dim"],
        ),
        code_dim=raw["code_dim"],
        sample_rate=raw.get("sampling_rate", raw.get("sample_rate", 24_000)),
        context_seconds=raw["causal_transformer_context_duration"],
        rope_period=transformers[0]["max_period"],
        layer_scale=transformers[0]["layer_scale"],
    )


def _stages(modules: list[dict[str, Any]], *, patch_first: bool) -> tuple[StageConfig, ...]:
    if len(modules) % 2:
        raise CheckpointError(f"{len(modules)} modules: every Transformer needs a PatchedPretransform")
    stages = []
    for first, second in zip(modules[::2], modules[1::2], strict=True):
        patch, block = (first, second) if patch_first else (second, first)
        if patch["module_type"] != "PatchedPretransform" or block["module_type"] != "Transformer":
            raise CheckpointError("encoder and decoder must alternate PatchedPretransform and Transformer")
        for field, expected in _EXPECTED.items():
            if block.get(field, expected) != expected:
                raise CheckpointError(f"{field}={block[field]!r} is not supported, only {expected!r}")
        stages.append(
            StageConfig(
                patch_size=patch["patch_size"],
                input_dim=block["input_dimension"],
                dim=block["d_model"],
                output_dim=block["output_dimension"],
                num_layers=block["num_layers"],
                num_heads=block["num_heads"],
                ffn_dim=block["dim_feedforward"],
            )
        )
    return tuple(stages)


def state_to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights to the published names, and turn the quantizer's projections into 1x1 convolutions.

    Args:
        state: Weights of an `AudioTokenizer`.

    Returns:
        The published state.
    """
    return {_published_name(name): _as_convolution(name, value) for name, value in state.items()}


def state_from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Invert `state_to_published`; the older names of the attention matrices are accepted too.

    Args:
        state: Published weights.

    Returns:
        Weights for an `AudioTokenizer`.
    """
    renamed = {}
    for name, value in state.items():
        for old, new in _OLDER_NAMES.items():
            name = name.replace(old, new)
        ours = _our_name(name)
        renamed[ours] = value.squeeze(-1) if _is_projection(ours) else value
    return renamed


def _is_projection(name: str) -> bool:
    return name.startswith("quantizer.") and ".parametrizations.weight." in name


def _as_convolution(name: str, value: Tensor) -> Tensor:
    return value[..., None] if _is_projection(name) else value


def _published_name(name: str) -> str:
    if name.startswith("quantizer."):
        name = name.replace("quantizer.project_", "quantizer.PROJ_").replace("layers.", "quantizers.")
        name = name.replace("project_in.", "in_proj.").replace("project_out.", "out_proj.")
        return name.replace("PROJ_in.", "input_proj.").replace("PROJ_out.", "output_proj.")
    side, stage, rest = name.split(".", 2)
    position = 2 * int(stage) + (side == "encoder")  # transformers sit between the patch modules
    rest = re.sub(r"^project_in\.", "input_proj.", re.sub(r"^project_out\.", "output_proj.", rest))
    if rest.startswith("layers."):
        _, layer, rest = rest.split(".", 2)
        for ours, theirs in _LAYER.items():
            if rest.startswith(ours):
                rest = f"transformer.layers.{layer}.{theirs}{rest.removeprefix(ours)}"
                break
    return f"{side}.{position}.{rest}"


def _our_name(name: str) -> str:
    if name.startswith("quantizer."):
        name = re.sub(r"^quantizer\.(in|out)put_proj\.", r"quantizer.project_\1.", name)
        return re.sub(r"\.(in|out)_proj\.", r".project_\1.", name).replace(
            "quantizer.quantizers.", "quantizer.layers."
        )
    side, position, rest = name.split(".", 2)
    stage = int(position) // 2
    rest = re.sub(r"^(in|out)put_proj\.", r"project_\1.", rest)
    if rest.startswith("transformer.layers."):
        _, _, layer, rest = rest.split(".", 3)
        for ours, theirs in _LAYER.items():
            if rest.startswith(theirs):
                rest = f"layers.{layer}.{ours}{rest.removeprefix(theirs)}"
                break
    return f"{side}.{stage}.{rest}"
