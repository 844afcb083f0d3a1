"""Measure the peak memory of a call, beyond what was allocated before it."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch


def peak_growth(run: Callable[[], object], device: torch.device) -> int:
    """Return the peak memory of a call in bytes, beyond what was allocated before it.

    On a CPU it is the memory of the whole process, as Linux counts it.

    Args:
        run: The call.
        device: Where it computes.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _kilobytes("VmRSS")
    run()
    return 1024 * (_kilobytes("VmHWM") - before)


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
