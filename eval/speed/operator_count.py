"""Count the operators that a computation calls, whose overhead dominates where tensors are small."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class OperatorCount(TorchDispatchMode):
    """Counts the operators that reach a backend, by name, in `calls`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


def operator_calls(call: Callable[[], object]) -> int:
    """Return the number of operator calls in one call.

    Args:
        call: What is run, once.
    """
    with OperatorCount() as count:
        call()
    return count.calls.total()
