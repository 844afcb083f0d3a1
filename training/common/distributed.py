"""How the processes of a training share the work: alone, as replicas (DDP), with sharded weights (FSDP2)."""

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

GRID = 128
"""Rows of a product on a CPU in bfloat16."""


def start(*, unused: bool) -> Accelerator:
    """Join the other processes that `accelerate launch` started, if any.

    `unused` says that a step may leave parameters without gradient. Precision is not Accelerate's: with
    FSDP2 it would round the weights of whole modules, see `lower_precision`.
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
        # Accelerate forgets on CPUs what its launcher was asked for, though all that it does then works there
        state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
        state.fsdp_plugin = FullyShardedDataParallelPlugin()
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise ValueError("FSDP 1 is not supported: launch with training/accelerate/fsdp2.yaml")
    return accelerator


def replicate(
    accelerator: Accelerator, module: nn.Module, optimizer: Optimizer
) -> tuple[nn.Module, Optimizer]:
    """Prepare a module of which every process keeps all weights, even where those of another are sharded."""
    if not accelerator.is_fsdp2:
        return accelerator.prepare(module, optimizer)
    accelerator.register_for_checkpointing(module, optimizer)
    device = accelerator.device
    own = [device] if device.type == "cuda" else None
    return DistributedDataParallel(module.to(device), own), optimizer


def lower_precision(module: nn.Module, device: torch.device) -> None:
    """Run its forward pass under bf16 autocast, from float32 weights to float32 results.

    Rounded weights are not cached: each is used once, and a cache would hold those of all layers.
    """
    autocast = torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
    forward = convert_outputs_to_fp32(autocast(module.forward))
    module.forward = _on_grid(forward) if device.type == "cpu" else forward


class RowGrid(TorchFunctionMode):
    """Linear layers see numbers of rows that recur: multiples of `GRID`, filled up with zeros.

    oneDNN makes a bfloat16 kernel for each shape that it meets, which takes longer than the product does.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is not F.linear:
            return func(*args, **(kwargs or {}))
        x, *weights = args
        rows = x.shape[:-1].numel()
        filled = F.pad(x.reshape(rows, x.shape[-1]), (0, 0, 0, -rows % GRID))
        return func(filled, *weights, **(kwargs or {}))[:rows].unflatten(0, x.shape[:-1])


def _on_grid(forward: Callable[..., Any]) -> Callable[..., Any]:
    def on_grid(*args: Any, **kwargs: Any) -> Any:
        with RowGrid():
            return forward(*args, **kwargs)

    return on_grid


def ignore_signals(_: int) -> None:
    """For those who read ahead: Ctrl-C reaches them too, and they must live until the loop has saved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def descend(optimizers: Sequence[Optimizer], rate: float, clip: float) -> Tensor:
    """One step down the gradients, which together are no longer than `clip`; their norm before that.

    A group's `share` is its learning rate as a part of the others'.
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
    """The sum of what the processes give."""
    if accelerator.num_processes == 1:
        return number
    total = accelerator.reduce(torch.tensor(number, device=accelerator.device), "sum")
    return int(cast(Tensor, total))
