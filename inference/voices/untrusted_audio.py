"""Decoding of audio from untrusted sources: never more than is allowed, whatever the file claims."""

import math
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from tokenizer.io.audio import AudioError

UNREADABLE = "not readable as audio: send wav, flac, ogg or mp3"
SAMPLE_RATES = range(4_000, 400_001)
MAX_CHANNELS = 8
_BLOCK = 1 << 16


def decode_upload(data: bytes, max_seconds: float) -> tuple[Float[np.ndarray, " s"], int]:
    """Decode audio bytes.

    A file of a few kilobytes can hold days of silence, and a sample rate of a few Hertz stretches any data to
    days. The data is read from a nameless file on disk, where libsndfile can seek to positions that do not
    exist without harm.

    Args:
        data: The bytes of an audio file.
        max_seconds: Longest audio that is accepted.

    Returns:
        Mono samples [s], and their rate in Hz.

    Raises:
        AudioError: the data is not audio, or longer than `max_seconds`.
    """
    try:
        with TemporaryFile(buffering=0) as disk:
            disk.write(data)
            disk.seek(0)
            samples, rate, more = _decode(disk.fileno(), max_seconds)
    except (soundfile.SoundFileError, RuntimeError):
        raise AudioError(UNREADABLE) from None
    if more:
        raise AudioError(f"longer than {max_seconds:g} s, the most that this model takes: cut it")
    return samples, rate


def load_upload(path: str | Path, sample_rate: int, max_seconds: float) -> Float[np.ndarray, " s"]:
    """Load the beginning of a file that a user uploaded.

    `load_audio` is for trusted files: it allocates as much memory as a header claims.

    Args:
        path: The file.
        sample_rate: Samples per second of what is returned.
        max_seconds: How much of the file is read.

    Returns:
        Mono samples [s].

    Raises:
        AudioError: the file is not audio; the message begins with its path.
    """
    try:
        with open(path, "rb") as file:
            samples, rate, _ = _decode(file.fileno(), max_seconds)
    except (soundfile.SoundFileError, RuntimeError):
        raise AudioError(f"{path}: {UNREADABLE}") from None
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from None
    audio = soxr.resample(samples, rate, sample_rate, quality="HQ").clip(-1, 1)
    if not np.isfinite(audio).all() or not len(audio):
        raise AudioError(f"{path}: holds NaN, infinite or too few samples: export it again")
    return audio


def _decode(descriptor: int, max_seconds: float) -> tuple[Float[np.ndarray, " s"], int, bool]:
    """Return samples, their rate, and whether the file has more."""
    with soundfile.SoundFile(descriptor, closefd=False) as file:
        rate, channels = file.samplerate, file.channels
        if rate not in SAMPLE_RATES or channels > MAX_CHANNELS:
            raise AudioError(f"{channels} channels of {rate} Hz are not accepted: send 16 to 48 kHz mono")
        max_samples, blocks, read = math.ceil(max_seconds * rate), list[np.ndarray](), 0
        while read <= max_samples and len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
            read += len(block)
            blocks.append(block.mean(axis=1))
    if not read:
        raise AudioError("holds no samples: record or export it again")
    return np.concatenate(blocks)[:max_samples], rate, read > max_samples
