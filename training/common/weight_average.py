"""The running average of the weights, which is what a run is for, with or without sharded weights."""

import copy
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

Model = TypeVar("Model", bound=nn.Module)


def hollow(module: Model) -> Model:
    """A copy without weights: parameters on the meta device, all else as it is."""
    memo = {id(p): nn.Parameter(torch.empty_like(p, device="meta")) for p in module.parameters()}
    return copy.deepcopy(module, memo)


class Average(Generic[Model]):
    """Averages of the parameters, each process's of its own shards where the parameters are sharded.

    A checkpoint holds them whole, so that another number of processes can go on with it.
    """

    def __init__(self, shell: Model, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        """`shell` is what `module` fills, see `hollow`; `parameters` are those that the optimizer changes."""
        self.shell, self.parameters, self.decay = shell, parameters, decay
        self.updates = 0
        self.weights = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are now; the first time they become the average."""
        mine = [_local(weight) for weight in self.weights.values()]
        theirs = [_local(parameter) for parameter in self.parameters.values()]
        if self.updates:
            torch._foreach_lerp_(mine, theirs, 1 - self.decay)  # pyright: ignore[reportPrivateImportUsage]
        else:
            torch._foreach_copy_(mine, theirs)  # pyright: ignore[reportPrivateImportUsage]
        self.updates += 1

    def module(self) -> Model:
        """The averages as a module. All processes must call: each then has a whole one, of gathered weights
        where they are sharded, and of the averages themselves where they are not."""
        module = copy.deepcopy(self.shell)
        module.load_state_dict(self._whole(), assign=True)
        return module.to(next(module.parameters()).device)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "weights": self._whole()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        for name, weight in self.weights.items():
            given = state["weights"][name].to(weight.device)
            if isinstance(weight, DTensor):
                given = distribute_tensor(given, weight.device_mesh, weight.placements, src_data_rank=None)
            _local(weight).copy_(_local(given))

    def _whole(self) -> dict[str, Tensor]:
        weights = self.weights.items()
        return {name: w.full_tensor() if isinstance(w, DTensor) else w for name, w in weights}


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
