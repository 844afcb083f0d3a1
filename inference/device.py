"""Choose the device to run on, and measure the memory in use on it."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

MAX_SMALL_PARAMETERS = 200_000_000
"""Parameters below which one thread computes a frame as fast as several."""


def usable_device(name: str | None) -> str:
    """Return the device to run on.

    Args:
        name: A torch device name; None chooses cuda where there is a GPU, else cpu.

    Returns:
        The name of a device that works on this machine.

    Raises:
        ValueError: this machine does not have the device `name`.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (AssertionError, RuntimeError):
        raise ValueError(f"device {name!r}: not on this machine; choose cpu, or cuda with a GPU") from None
    return name


def thread_count(*models: nn.Module) -> int | None:
    """Return how many threads compute fastest with models; the same on every run, and so are the results.

    On a CPU, small models take as long with one thread as with two, and with several they take many times as
    long beside other programs, since all threads wait for the one that has no core.

    Args:
        models: What is computed.

    Returns:
        1 for small models on a CPU; None leaves the choice to torch.
    """
    parameters = [parameter for model in models for parameter in model.parameters()]
    small = sum(parameter.numel() for parameter in parameters) < MAX_SMALL_PARAMETERS
    return 1 if small and parameters[0].device.type == "cpu" else None


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let torch compute with so many threads in this thread; None leaves their number as it is."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def peak_bytes(device: torch.device) -> int:
    """Return the peak memory use so far, in bytes: allocated on a GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage also counts the parent process
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource  # does not exist on Windows, where the rest of this module works

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def attention_name(device: torch.device, dtype: torch.dtype) -> str:
    """Return the backend that `tokenizer.layers.attention.attend` uses for this device and dtype."""
    fits = device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)
    return "FlashAttention 2" if fits and importlib.util.find_spec("flash_attn") else "SDPA"
