"""The memory that was needed."""

import numpy as np
import psutil
import torch

from inference.hardware import peak_bytes


def test_the_peak_is_what_was_needed_at_once() -> None:
    """50 MB beyond the peak so far raise it by 50 MB; what fits below it does not."""
    before, cpu = peak_bytes(torch.device("cpu")), torch.device("cpu")
    now = psutil.Process().memory_info().rss
    assert now <= before + 2**20
    np.ones(before - now + 50_000_000, np.uint8)
    after = peak_bytes(cpu)
    assert 40e6 < after - before < 70e6
    np.ones(20_000_000, np.uint8)
    assert peak_bytes(cpu) - after < 5e6
