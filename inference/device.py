"""Choose the device to run on, and measure the memory in use on it."""

import importlib.util
from pathlib import Path

import torch


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
