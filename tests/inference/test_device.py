"""Peak memory of the process, and the number of threads."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from inference import SynthesisOptions, Synthesizer
from inference.device import thread_count, threads
from inference.synthesis.loading import DEFAULT_MODEL
from inference.synthesis.runner import LocalRunner

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


def test_small_models_are_computed_by_one_thread_on_a_cpu() -> None:
    small, large = nn.Linear(8, 8), nn.Linear(20_000, 20_000, device="meta")
    assert thread_count(small) == thread_count(small, small) == 1
    assert thread_count(large) is None and thread_count(small, large) is None
    assert thread_count(nn.Linear(8, 8, device="meta")) is None


def test_the_number_of_threads_is_restored() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threads(1):
            assert torch.get_num_threads() == 1
            with threads(None):
                assert torch.get_num_threads() == 1
        with pytest.raises(ZeroDivisionError), threads(1):
            raise ZeroDivisionError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_same_seed_gives_the_same_file_with_any_number_of_threads() -> None:
    """Of the shipped model, from the recording on; frames are computed by one thread."""
    prompt, results, counts = DEFAULT_MODEL / "prompt.flac", [], set[int]()

    def count(codes: object, audio: object) -> None:
        counts.add(torch.get_num_threads())

    before = torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            models = Synthesizer.from_pretrained(device="cpu")
            voice = models.load_voice(prompt, prompt.with_suffix(".txt").read_text(encoding="utf-8"))
            request = models.request("Good morning.", voice, SynthesisOptions(max_seconds=0.8))
            results.append(LocalRunner(models).stream(request, guard=count).collect())
    finally:
        torch.set_num_threads(before)
    assert results[0].audio.tobytes() == results[1].audio.tobytes() and counts == {1}
