"""Measure time to first audio and RTF of a model, prompt encoding and audio decoding included."""

import statistics
from collections.abc import Sequence

from eval.speed.generation import clock
from inference.engine.options import SynthesisOptions
from inference.synthesis.loading import DEFAULT_MODEL
from inference.synthesizer import Synthesizer

TEXT = "The quick brown fox jumps over the lazy dog, and the dog does not mind."


def measure(*, depths: Sequence[int], device: str = "cpu", rounds: int = 3, text: str = TEXT) -> list[dict]:
    """Measure the time to first audio, cold and warm, and the RTF of the embedded model.

    Cold is just loaded, with a prompt that was not encoded before. RTF is the time of a whole warm synthesis
    over the length of its audio; on the CPU times are those of the calling thread.

    Args:
        depths: Numbers of codebooks.
        device: A torch device name.
        rounds: Number of warm syntheses, over which the median is taken.
        text: What the model speaks.

    Returns:
        For each depth, seconds to load and to first audio, and RTF, by name.
    """
    prompt, words = DEFAULT_MODEL / "prompt.flac", (DEFAULT_MODEL / "prompt.txt").read_text().strip()
    results = []
    for depth in depths:
        started = clock(device)
        synthesizer = Synthesizer.from_pretrained(device=device)
        loaded = clock(device) - started
        firsts, factors = [], []
        for seed in range(1 + rounds):
            started, first, samples = clock(device), None, 0
            voice = synthesizer.load_voice(prompt, words)
            with synthesizer.stream(text, voice, SynthesisOptions(depth=depth, seed=seed)) as stream:
                for audio in stream:
                    samples += len(audio)
                    first = clock(device) - started if first is None else first
            firsts.append(first)
            factors.append((clock(device) - started) * synthesizer.sample_rate / samples)
        results.append(
            {
                "depth": depth,
                "load_seconds": loaded,
                "first_audio_seconds_cold": firsts[0],
                "first_audio_seconds": statistics.median(firsts[1:]),
                "rtf": statistics.median(factors[1:]),
            }
        )
    return results
