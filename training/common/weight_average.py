"""The running average of the weights, the result of a run, with or without sharded weights."""

import copy
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

Model = TypeVar("Model", bound=nn.Module)


def meta_copy(module: Model) -> Model:
    """Return a copy of a module with its parameters on the meta device, all else as it is."""
    memo = {id(p): nn.Parameter(torch.empty_like(p, device="meta")) for p in module.parameters()}
    return copy.deepcopy(module, memo)


class WeightAverage(Generic[Model]):
    """Averages of the parameters; each process holds those of its shards where the parameters are sharded.

    A checkpoint holds them whole, so that another number of processes can continue with it.
    """

    def __init__(self, template: Model, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        """Begin with the parameters as they are.

        Args:
            template: Module without weights that `module` fills, see `meta_copy`.
            parameters: Parameters that the optimizer changes.
            decay: Part of the average that stays in an update; 0 averages nothing.
        """
        self.template, self.parameters, self.decay = template, parameters, decay
        self.updates = 0
        self.weights = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the present parameters; the first time they become the average."""
        averages = [_local(weight) for weight in self.weights.values()]
        present = [_local(parameter) for parameter in self.parameters.values()]
        if self.updates:
            torch._foreach_lerp_(averages, present, 1 - self.decay)  # pyright: ignore[reportPrivateImportUsage]
        else:
            torch._foreach_copy_(averages, present)  # pyright: ignore[reportPrivateImportUsage]
        self.updates += 1

    def module(self) -> Model:
        """Return the averages as a module; all processes must call.

        Each process gets a whole module: of gathered weights where they are sharded, and of the averages
        themselves where they are not.
        """
        module = copy.deepcopy(self.template)
        module.load_state_dict(self._whole(), assign=True)
        return module.to(next(module.parameters()).device)

    def state_dict(self) -> dict[str, Any]:
        """Return the averages, whole, for a checkpoint."""
        return {"updates": self.updates, "weights": self._whole()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the averages of a checkpoint."""
        self.updates = state["updates"]
        for name, weight in self.weights.items():
            loaded = state["weights"][name].to(weight.device)
            if isinstance(weight, DTensor):
                loaded = distribute_tensor(loaded, weight.device_mesh, weight.placements, src_data_rank=None)
            _local(weight).copy_(_local(loaded))

    def _whole(self) -> dict[str, Tensor]:
        weights = self.weights.items()
        return {name: w.full_tensor() if isinstance(w, DTensor) else w for name, w in weights}


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
