"""Peak memory of the process."""

import subprocess
import sys

import pytest

USE = """
import mmap
import torch
from inference.device import peak_bytes

def touch(count):
    with mmap.mmap(-1, count) as block:
        for i in range(0, count, mmap.PAGESIZE):
            block[i] = 1

cpu = torch.device("cpu")
touch(50_000_000)
before = peak_bytes(cpu)
touch(20_000_000)
smaller = peak_bytes(cpu)
touch(100_000_000)
print(smaller - before, peak_bytes(cpu) - smaller)
"""
"""In a process of its own: what other tests hold, or hand back in the meantime, is not in it."""


@pytest.mark.skipif(sys.platform == "win32", reason="the peak comes from Linux or from getrusage")
def test_peak_bytes() -> None:
    """20 MB fit below a peak of 50 MB; 100 MB raise it by 50 MB."""
    ran = subprocess.run([sys.executable, "-c", USE], capture_output=True, text=True, check=True)
    smaller, larger = map(int, ran.stdout.split())
    assert 0 <= smaller < 5e6
    assert 40e6 < larger < 60e6
