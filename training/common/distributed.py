"""How processes share a training: a single one, replicas (DDP), or sharded weights (FSDP2)."""

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.operations import convert_outputs_to_fp32
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

ROW_MULTIPLE = 128
"""Rows of products on a CPU in bfloat16 are padded to a multiple of this."""


def start(*, unused: bool) -> Accelerator:
    """Join the other processes that `accelerate launch` started, if any.

    Precision is not Accelerate's: with FSDP2 it would round the weights of whole modules, see
    `lower_precision`.

    Args:
        unused: A step may leave parameters without gradient.

    Raises:
        ValueError: the launcher's settings are not supported.
    """
    ddp = DistributedDataParallelKwargs(find_unused_parameters=unused)
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no", kwargs_handlers=[ddp])
    if accelerator.num_processes == 1 and {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys():
        raise ValueError(
            "accelerate was asked for several processes and started one, as its --cpu does without MPI; "
            "launch with --config_file training/accelerate/ddp.yaml, which works on CPUs too"
        )
    state, sharded = accelerator.state, os.environ.get("ACCELERATE_USE_FSDP") == "true"
    if sharded and state.distributed_type == DistributedType.MULTI_CPU:
        # On CPUs Accelerate ignores this setting of its launcher, though FSDP2 works there.
        state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
        state.fsdp_plugin = FullyShardedDataParallelPlugin()
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise ValueError("FSDP 1 is not supported: launch with training/accelerate/fsdp2.yaml")
    return accelerator


def replicate(
    accelerator: Accelerator, module: nn.Module, optimizer: Optimizer
) -> tuple[nn.Module, Optimizer]:
    """Prepare a module that every process holds whole, even where another module is sharded."""
    if not accelerator.is_fsdp2:
        return accelerator.prepare(module, optimizer)
    accelerator.register_for_checkpointing(module, optimizer)
    device = accelerator.device
    device_ids = [device] if device.type == "cuda" else None
    return DistributedDataParallel(module.to(device), device_ids), optimizer


def lower_precision(module: nn.Module, device: torch.device) -> None:
    """Run its forward pass under bf16 autocast, from float32 weights to float32 results.

    Rounded weights are not cached: each is used once, and a cache would hold those of all layers.
    """
    autocast = torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
    forward = convert_outputs_to_fp32(autocast(module.forward))
    module.forward = _with_padded_rows(forward) if device.type == "cpu" else forward


class PaddedLinearRows(TorchFunctionMode):
    """Linear layers get few different numbers of rows: multiples of `ROW_MULTIPLE`, padded with zeros.

    oneDNN makes a bfloat16 kernel for each shape that it meets, which takes longer than the product does.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is not F.linear:
            return func(*args, **(kwargs or {}))
        x, *weights = args
        rows = x.shape[:-1].numel()
        filled = F.pad(x.reshape(rows, x.shape[-1]), (0, 0, 0, -rows % ROW_MULTIPLE))
        return func(filled, *weights, **(kwargs or {}))[:rows].unflatten(0, x.shape[:-1])


def _with_padded_rows(forward: Callable[..., Any]) -> Callable[..., Any]:
    def on_grid(*args: Any, **kwargs: Any) -> Any:
        with PaddedLinearRows():
            return forward(*args, **kwargs)

    return on_grid


def ignore_signals(_: int) -> None:
    """Ignore Ctrl-C in a worker that reads ahead: it must run until the loop has saved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def optimizer_step(optimizers: Sequence[Optimizer], rate: float, clip: float) -> Tensor:
    """Clip the gradients together, make one step, and clear the gradients.

    Args:
        optimizers: All optimizers; a group's `share` is its learning rate as a part of `rate`.
        rate: Learning rate of the step.
        clip: Largest norm of all gradients together.

    Returns:
        Their norm before clipping.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    for group in groups:
        group["lr"] = rate * group.get("share", 1.0)
    norm = nn.utils.clip_grad_norm_([weight for group in groups for weight in group["params"]], clip)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def total_over_processes(accelerator: Accelerator, number: int) -> int:
    """Return the sum of a number over all processes."""
    if accelerator.num_processes == 1:
        return number
    total = accelerator.reduce(torch.tensor(number, device=accelerator.device), "sum")
    return int(cast(Tensor, total))
