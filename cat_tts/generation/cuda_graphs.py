"""CUDA graphs of functions of one frozen dataclass of tensors: recorded once, replayed with one launch."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor


def list_tensors(value: Any) -> list[Tensor]:
    """List the tensors of a dataclass and of the dataclasses in it, in order."""
    if isinstance(value, Tensor):
        return [value]
    if not is_dataclass(value):
        return []
    return [tensor for field in fields(value) for tensor in list_tensors(getattr(value, field.name))]


def clone_tensors(value: Any) -> Any:
    """Copy a dataclass, with clones of its tensors."""
    if isinstance(value, Tensor):
        return value.clone()
    if not is_dataclass(value) or isinstance(value, type):
        return value
    return replace(
        value, **{field.name: clone_tensors(getattr(value, field.name)) for field in fields(value)}
    )


class RecordedFunction:
    """A function recorded as a CUDA graph with its first inputs; calls replay it with other tensor values.

    The result is overwritten by the next call.
    """

    def __init__(self, function: Callable[[Any], Tensor], inputs: Any) -> None:
        self.inputs = clone_tensors(inputs)
        warm_up_stream = torch.cuda.Stream()
        warm_up_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(
            warm_up_stream
        ):  # libraries set themselves up in a first run, which no graph may hold
            for _ in range(2):
                function(self.inputs)
        torch.cuda.current_stream().wait_stream(warm_up_stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = function(self.inputs)

    def __call__(self, inputs: Any) -> Tensor:
        """Replay the graph with the tensors of `inputs`, which must have the shapes that were recorded."""
        for static, value in zip(list_tensors(self.inputs), list_tensors(inputs), strict=True):
            static.copy_(value)
        self.graph.replay()
        return self.output
