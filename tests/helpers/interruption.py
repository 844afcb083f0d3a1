"""Training runs that end early, at an exact step."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook


class Crash(Exception):
    """Ends a run without its knowledge."""


@contextmanager
def terminated_at(step: int) -> Iterator[None]:
    """Send this process SIGTERM in the course of the optimizer's step number `step`."""
    with _at(step, lambda: signal.raise_signal(signal.SIGTERM)):
        yield


@contextmanager
def crashing_at(step: int) -> Iterator[None]:
    """Raise Crash in the course of the optimizer's step number `step`."""

    def crash() -> None:
        raise Crash

    with _at(step, crash):
        yield


@contextmanager
def _at(step: int, act: Callable[[], None]) -> Iterator[None]:
    taken = 0

    def count(*_: object) -> None:
        nonlocal taken
        taken += 1
        if taken == step:
            act()

    handle = register_optimizer_step_post_hook(count)
    try:
        yield
    finally:
        handle.remove()


def saved_state(run: Path) -> dict[str, Any]:
    """All tensors and numbers of RUN/state but the generators': weights, optimizer, average, step; of the
    discriminators too, where there are any."""
    folder, state = run / "state", {}
    for name, file in {"weights": "model.safetensors", "discriminators": "model_1.safetensors"}.items():
        if (folder / file).exists():
            state[name] = load_file(folder / file)
    optimizers = {"optimizer": "optimizer.bin", "discriminators' optimizer": "optimizer_1.bin"}
    for name, file in {**optimizers, "average": "custom_checkpoint_0.pkl"}.items():
        if (folder / file).exists():
            state[name] = torch.load(folder / file, weights_only=True)
    return {**state, "step": (folder / "step.json").read_text()}


def assert_equal(actual: object, expected: object) -> None:
    """Nested dicts, lists, tensors and plain values, equal bit for bit."""
    if isinstance(actual, Tensor):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    elif isinstance(actual, dict):
        assert isinstance(expected, dict) and list(actual) == list(expected)
        for name, value in actual.items():
            assert_equal(value, expected[name])
    elif isinstance(actual, list):
        assert isinstance(expected, list) and len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_equal(one, other)
    else:
        assert actual == expected
