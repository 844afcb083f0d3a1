"""Transcripts of recordings, by a speech recognizer on this machine; nothing is downloaded for it."""

import importlib.util
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soxr
from jaxtyping import Float

Recognizer = Callable[[Float[np.ndarray, " s"], int], str]
"""A function from mono samples [s] and their rate to text, which is empty where no speech is recognized."""

SAMPLE_RATE = 16_000
MODEL_SIZES = ("large-v3-turbo", "medium", "small", "base", "tiny")
"""Whisper models that are looked for, the best first."""


class Whisper:
    """A Whisper model, run by faster-whisper on the CPU and loaded when it is first needed.

    Args:
        folder: The folder of the model.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._model, self._lock = None, threading.Lock()

    def __call__(self, audio: Float[np.ndarray, " s"], sample_rate: int) -> str:
        """Transcribe a recording in its own language; one recording at a time.

        Args:
            audio: Mono samples [s].
            sample_rate: In Hz.

        Returns:
            The text, empty where no speech is recognized.
        """
        from faster_whisper import WhisperModel  # pyright: ignore[reportMissingImports]  # an extra

        samples = soxr.resample(audio.astype(np.float32), sample_rate, SAMPLE_RATE, quality="HQ")
        with self._lock:
            if self._model is None:
                self._model = WhisperModel(str(self.folder), device="cpu", compute_type="int8")
            segments, _ = self._model.transcribe(
                samples, beam_size=5, condition_on_previous_text=False, without_timestamps=True
            )
            return " ".join(segment.text.strip() for segment in segments).strip()


def find_recognizer(folder: Path | None = None) -> Recognizer | None:
    """Find a speech recognizer on this machine.

    Args:
        folder: The folder of a Whisper model for faster-whisper; None for the best of those that
            faster-whisper downloaded earlier.

    Returns:
        The recognizer, or None if there is none.

    Raises:
        ValueError: `folder` holds no model, or faster-whisper is not installed.
    """
    installed = importlib.util.find_spec("faster_whisper") is not None
    if folder is not None:
        if not (folder / "model.bin").is_file():
            raise ValueError(f"{folder}: no model of Whisper for faster-whisper (model.bin is missing)")
        if not installed:
            raise ValueError("the recognizer needs faster-whisper: pip install faster-whisper")
        return Whisper(folder)
    return _downloaded() if installed else None


def _downloaded() -> Recognizer | None:
    from faster_whisper.utils import download_model  # pyright: ignore[reportMissingImports]  # an extra

    for size in MODEL_SIZES:
        try:
            return Whisper(Path(download_model(size, local_files_only=True)))
        except OSError:  # not downloaded
            continue
    return None
