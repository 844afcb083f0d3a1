"""What a recording says, by a recogniser that is on this machine; nothing is fetched for it."""

import importlib.util
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soxr
from jaxtyping import Float

Recogniser = Callable[[Float[np.ndarray, " s"], int], str]
"""Mono samples and their rate to text; empty where nothing is heard."""

SAMPLE_RATE = 16_000
SIZES = ("large-v3-turbo", "medium", "small", "base", "tiny")
"""Models of Whisper that are looked for, the best first."""


class Whisper:
    """A model of Whisper, run by faster-whisper on the CPU and read in when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._model, self._lock = None, threading.Lock()

    def __call__(self, audio: Float[np.ndarray, " s"], sample_rate: int) -> str:
        """In the language that is heard; one recording at a time."""
        from faster_whisper import WhisperModel  # pyright: ignore[reportMissingImports]  # an extra

        samples = soxr.resample(audio.astype(np.float32), sample_rate, SAMPLE_RATE, quality="HQ")
        with self._lock:
            if self._model is None:
                self._model = WhisperModel(str(self.folder), device="cpu", compute_type="int8")
            segments, _ = self._model.transcribe(
                samples, beam_size=5, condition_on_previous_text=False, without_timestamps=True
            )
            return " ".join(segment.text.strip() for segment in segments).strip()


def find_recogniser(folder: Path | None = None) -> Recogniser | None:
    """The recogniser of a folder, or the best of those that faster-whisper fetched earlier; None if none is.

    ValueError where `folder` is given and holds no model, or nothing can run it.
    """
    installed = importlib.util.find_spec("faster_whisper") is not None
    if folder is not None:
        if not (folder / "model.bin").is_file():
            raise ValueError(f"{folder}: no model of Whisper for faster-whisper (model.bin is missing)")
        if not installed:
            raise ValueError("the recogniser needs faster-whisper: pip install faster-whisper")
        return Whisper(folder)
    return _fetched() if installed else None


def _fetched() -> Recogniser | None:
    from faster_whisper.utils import download_model  # pyright: ignore[reportMissingImports]  # an extra

    for size in SIZES:
        try:
            return Whisper(Path(download_model(size, local_files_only=True)))
        except OSError:  # not fetched
            continue
    return None
