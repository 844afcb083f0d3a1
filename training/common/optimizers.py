"""What changes a model's weights: AdamW, or Muon for the matrices of layers and AdamW for the rest.

Muon (torch.optim.Muon) makes the step of a matrix equally long in all its directions. `match_rms_adamw`
brings its steps to the length of AdamW's, so that one learning rate serves both. Tables, heads, adapters and
gains are AdamW's.
"""

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from training.audio_tokenizer import recipes
from training.tts.recipes import OptimizerConfig

BETAS = (0.9, 0.95)
LAYERS, CODEBOOKS = ".layers.", "quantizer."
"""In the names of what Muon changes, and of what it leaves to AdamW although it lies in layers."""
TABLES = ("embedding", "head")
"""One of them is in the names of what has a row for each code or token."""


def optimizers(model: nn.Module, rates: OptimizerConfig) -> list[Optimizer]:
    """One or two, which together change all that is trained."""
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    turned = matrices(model) if rates.muon else []
    held = {id(weight) for weight in turned}
    rest = [(name, weight) for name, weight in named if id(weight) not in held]
    slow = [weight for name, weight in rest if rates.tables != 1 and any(part in name for part in TABLES)]
    kept_back = {id(weight) for weight in slow}
    groups = _groups([weight for _, weight in rest if id(weight) not in kept_back], rates.weight_decay)
    if slow:
        groups.append({"params": slow, "weight_decay": rates.weight_decay, "share": rates.tables})
    built: list[Optimizer] = [torch.optim.AdamW(groups, rates.learning_rate, betas=BETAS, fused=True)]
    if turned:
        built.append(muon(turned, rates))
    return built


def matrices(model: nn.Module) -> list[Tensor]:
    """What Muon may change."""
    return [
        weight
        for name, weight in model.named_parameters()
        if weight.requires_grad and weight.ndim == 2 and LAYERS in name and CODEBOOKS not in name
    ]


def muon(weights: list[Tensor], rates: OptimizerConfig | recipes.OptimizerConfig) -> Optimizer:
    """Of the `matrices` of a model."""
    return torch.optim.Muon(weights, rates.learning_rate, rates.weight_decay, adjust_lr_fn="match_rms_adamw")


def trained_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Of all that is trained."""
    return _groups([weight for weight in model.parameters() if weight.requires_grad], weight_decay)


def require_whole(accelerator: Accelerator, rates: OptimizerConfig | recipes.OptimizerConfig) -> None:
    """Raise ValueError where Muon would be given shards of matrices."""
    if rates.muon and accelerator.is_fsdp2:
        raise ValueError(
            "optimizer.muon needs whole matrices, which fsdp2.yaml splits: "
            "launch with training/accelerate/ddp.yaml, or give --optimizer.no-muon"
        )


def _groups(weights: list[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Gains of norms do not decay."""
    return [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
