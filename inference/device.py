"""The device to run on, and the memory that was needed."""

import importlib.util
from pathlib import Path

import torch


def usable_device(name: str | None) -> str:
    """`name`, or by default cuda where there is one; ValueError for a device that this machine lacks."""
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (AssertionError, RuntimeError):
        raise ValueError(f"device {name!r}: not on this machine; choose cpu, or cuda with a GPU") from None
    return name


def peak_bytes(device: torch.device) -> int:
    """The most memory that was in use so far: allocated on a GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where the other way counts the program that started this one
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource  # not on Windows, where the rest of this works

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def attention_name(device: torch.device, dtype: torch.dtype) -> str:
    """What `tokenizer.layers.attention.attend` uses for this device and dtype."""
    fits = device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)
    return "FlashAttention 2" if fits and importlib.util.find_spec("flash_attn") else "SDPA"
