"""A small synthetic corpus: two speakers whose words are chords of their own."""

from pathlib import Path

import numpy as np
import torch

from tokenizer.io.audio import save_audio
from training.data.manifest import Clip, write_manifest

SAMPLE_RATE = 24_000
TRANSCRIPT = """
amber brook cedar delta ember frost grove hazel ivory jolly kites lemon maple north olive piano quiet river
stone tiger uncle vivid water xenon young zebra
"""
SPEAKERS = {"low": 110.0, "high": 190.0}
"""Pitch in Hz."""


def write_corpus(folder: Path, clips: int = 48, seed: int = 0) -> Path:
    """Make FLAC files of 1 to 2 s and their manifest; return the manifest's path."""
    draw = np.random.default_rng(seed)
    made = []
    for i in range(clips):
        speaker = list(SPEAKERS)[i % len(SPEAKERS)]
        words = draw.choice(TRANSCRIPT.split(), int(draw.integers(4, 9)))
        audio = np.concatenate([_word(word, SPEAKERS[speaker], draw) for word in words])
        path = folder / speaker / f"{i:02d}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_audio(path, torch.from_numpy(audio.astype(np.float32)), SAMPLE_RATE)
        made.append(
            Clip(
                audio=path,
                text=" ".join(words).capitalize() + ".",
                speaker=speaker,
                language="en",
                duration=len(audio) / SAMPLE_RATE,
                source="synthetic",
                license="CC0-1.0",
            )
        )
    write_manifest(folder / "manifest.jsonl", made)
    return folder / "manifest.jsonl"


def _word(word: str, pitch: float, draw: np.random.Generator) -> np.ndarray:
    """About a quarter of a second of overtones, chosen by the letters, and a little noise."""
    samples = int(draw.integers(5800, 6100))
    time = np.arange(samples) / SAMPLE_RATE
    overtones = [1 + (ord(letter) - ord("a")) % 13 for letter in word]
    chord = sum(np.sin(2 * np.pi * pitch * overtone * time) for overtone in overtones)
    return (0.06 * chord + 0.005 * draw.standard_normal(samples)) * np.hanning(samples)
