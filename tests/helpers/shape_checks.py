"""Checks of shapes while tests run: importing this module turns them on for packages imported after it.

Functions, methods and dataclasses of the packages then check tensors that they take and return against
annotations such as `Float[Tensor, "b t d"]`. This takes time, and is off outside of tests. Annotations
without a shape are left to pyright: `cast("list[Stage]", nn.ModuleList(...))` tells it something untrue.
"""

import inspect
from collections.abc import Callable
from typing import Any, get_args

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, install_import_hook

PACKAGES = ["tokenizer", "cat_tts"]
_CONFIG = BeartypeConf(is_pep484_tower=True)  # an int may stand for a float


def check_shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate `function` so that it checks those of its annotations that have shapes."""
    hints = {name: hint for name, hint in function.__annotations__.items() if has_shape(hint)}
    if not hints:
        return function
    function.__annotations__ = hints
    return beartype(conf=_CONFIG)(function)


def has_shape(hint: object) -> bool:
    """Return whether an annotation is that of a tensor with a shape, or contains one."""
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return True
    return any(has_shape(part) for part in get_args(hint))


install_import_hook(PACKAGES, f"{__name__}.{check_shapes.__name__}")
