"""LoRA fine-tuning: a frozen model with trainable low-rank matrices beside its linear layers, by peft.

A run saves a peft adapter folder; `merge` gives a plain model. Generation reads weights without the layers'
`forward` and so ignores adapters: give it merged models only.
"""

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

from peft import LoraConfig, PeftModel, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from pydantic import ConfigDict
from safetensors.torch import save_file

from cat_tts import CatTTS

WEIGHTS = "adapter_model.safetensors"
_LAYERS = r"\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """Size and place of the adapters."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    rank: int = 0
    """Rank of the matrix that is added to each linear layer, such as 16; 0 trains all weights."""
    alpha: float = 32.0
    """The added matrix is scaled by alpha / rank."""
    dropout: float = 0.0
    """Dropout of the inputs of the added matrices."""
    depth: bool = False
    """Adapt the Depth Transformer's layers too, not the Temporal Transformer's alone."""

    def __post_init__(self) -> None:
        if self.rank < 0 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"rank={self.rank}, alpha={self.alpha}, dropout={self.dropout}: "
                "give a rank of 0 or more, an alpha above 0, a dropout of 0 to below 1"
            )


def adapt(model: CatTTS, options: LoraOptions, base: str | None = None) -> CatTTS:
    """Freeze `model` and put adapters, which change nothing yet, into it, in place.

    Args:
        model: The model.
        options: Size and place of the adapters.
        base: Where its weights came from, as the adapter folder names it.

    Returns:
        `model`.
    """
    parts = "(temporal|depth)" if options.depth else "temporal"
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=options.dropout,
        target_modules=parts + _LAYERS,
        base_model_name_or_path=base,
    )
    adapted = inject_adapter_in_model(config, model)
    assert adapted is model
    return model


def is_adapted(model: CatTTS) -> bool:
    """Return whether a model holds adapters."""
    return any(isinstance(module, LoraLayer) for module in model.modules())


def save_adapter(model: CatTTS, folder: Path) -> None:
    """Write the adapters of an adapted model as a peft folder, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    named = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in state.items()}
    save_file(named, folder / f"{WEIGHTS}.tmp", {"format": "pt"})
    os.replace(folder / f"{WEIGHTS}.tmp", folder / WEIGHTS)
    (config,) = cast("dict[str, LoraConfig]", model.peft_config).values()
    config = copy.copy(config)
    config.inference_mode = True
    config.save_pretrained(str(folder))


def merge(model: CatTTS) -> CatTTS:
    """Return a plain copy of an adapted model, with the adapters merged into its weights."""
    merged = copy.deepcopy(model)
    layers = [(name, module) for name, module in merged.named_modules() if isinstance(module, LoraLayer)]
    for name, layer in layers:
        layer.merge()  # pyright: ignore[reportCallIssue]
        merged.set_submodule(name, layer.get_base_layer())
    if layers:
        del merged.peft_config
    return merged.requires_grad_(True)


def add_adapter(model: CatTTS, folder: Path) -> CatTTS:
    """Merge the adapters of a peft folder into the weights of `model`, in place, and return it.

    Raises:
        ValueError: the folder holds no adapters, or they do not fit the model.
    """
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder} holds no {WEIGHTS}: give the folder that a LoRA run wrote, RUN/adapter")
    try:
        merged = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder} does not fit this model: {reason}") from None
    return merged.requires_grad_(True)
