"""The optimizers of a model: AdamW, or Muon for the matrices of layers and AdamW for the rest.

Muon (`cat_tts.muon`) makes the step of a matrix equally long in all its directions, and as long as AdamW's,
so that one learning rate serves both. Embeddings, heads, adapters and gains are AdamW's.
"""

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from cat_tts.muon import Muon
from training.common.settings import OptimizerConfig

BETAS = (0.9, 0.95)
LAYERS, CODEBOOKS = ".layers.", "quantizer."
"""Parts of the names of what Muon changes, and of what it leaves to AdamW although it lies in layers."""
EMBEDDING_NAMES = ("embedding", "head")
"""Parts of the names of weights that have a row for each code or token."""


def optimizers(model: nn.Module, rates: OptimizerConfig, embedding_scale: float = 1.0) -> list[Optimizer]:
    """Build the one or two optimizers that together change all trained weights.

    Args:
        model: Its parameters that require gradients are trained.
        rates: Learning rate and weight decay, and whether Muon takes the matrices of layers.
        embedding_scale: Learning rate of embeddings and heads, as a part of the others'.

    Returns:
        AdamW, and behind it Muon where `rates.muon` asks for it and there are matrices for it.
    """
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    muon_params = matrices(model) if rates.muon else []
    taken = {id(weight) for weight in muon_params}
    rest = [(name, weight) for name, weight in named if id(weight) not in taken]
    slow = [
        weight
        for name, weight in rest
        if embedding_scale != 1 and any(part in name for part in EMBEDDING_NAMES)
    ]
    slow_ids = {id(weight) for weight in slow}
    groups = _groups([weight for _, weight in rest if id(weight) not in slow_ids], rates.weight_decay)
    if slow:
        groups.append({"params": slow, "weight_decay": rates.weight_decay, "share": embedding_scale})
    built: list[Optimizer] = [torch.optim.AdamW(groups, rates.learning_rate, betas=BETAS, fused=True)]
    return [*built, muon(muon_params, rates)] if muon_params else built


def matrices(model: nn.Module) -> list[Tensor]:
    """Return the trained weights that Muon may change: the matrices of layers, no codebooks."""
    return [
        weight
        for name, weight in model.named_parameters()
        if weight.requires_grad and weight.ndim == 2 and LAYERS in name and CODEBOOKS not in name
    ]


def muon(weights: list[Tensor], rates: OptimizerConfig) -> Optimizer:
    """Build Muon for the `matrices` of a model."""
    return Muon(weights, rates.learning_rate, rates.weight_decay)


def trained_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return AdamW's parameter groups of all trained weights; gains of norms do not decay."""
    return _groups([weight for weight in model.parameters() if weight.requires_grad], weight_decay)


def require_unsharded(accelerator: Accelerator, rates: OptimizerConfig) -> None:
    """Refuse Muon where it would be given shards of matrices.

    Raises:
        ValueError: `rates.muon` is set and FSDP2 splits the weights.
    """
    if rates.muon and accelerator.is_fsdp2:
        raise ValueError(
            "optimizer.muon needs whole matrices, which fsdp2.yaml splits: "
            "launch with training/accelerate/ddp.yaml, or give --optimizer.no-muon"
        )


def _groups(weights: list[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Return a group that decays, and one of gains of norms and biases, which do not."""
    return [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
