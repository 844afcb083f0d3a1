"""Audio that a stranger sent: decoded only as far as it may be long, whatever it says of itself."""

import math
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from tokenizer.io.audio import AudioError

UNREADABLE = "not readable as audio: send wav, flac, ogg or mp3"
RATES = range(4_000, 400_001)
MOST_CHANNELS = 8
_BLOCK = 1 << 16


def decode_upload(data: bytes, max_seconds: float) -> tuple[Float[np.ndarray, " s"], int]:
    """Mono samples and their rate; AudioError for what is no audio, or longer than `max_seconds`.

    A file of a few kilobytes can hold days of silence, and one of a few Hertz days of anything. It is read
    from a nameless file on disk, where libsndfile can be sent to places that are not there without harm.
    """
    try:
        with TemporaryFile(buffering=0) as disk:
            disk.write(data)
            disk.seek(0)
            samples, rate, more = _decoded(disk.fileno(), max_seconds)
    except (soundfile.SoundFileError, RuntimeError):
        raise AudioError(UNREADABLE) from None
    if more:
        raise AudioError(f"longer than {max_seconds:g} s, the most that this model takes: cut it")
    return samples, rate


def load_upload(path: str | Path, sample_rate: int, most_seconds: float) -> Float[np.ndarray, " s"]:
    """The first `most_seconds` of a file that a visitor sent; AudioError, with its path, for what is none.

    `load_audio` is for files of one's own: it takes as much memory as a header says that there is.
    """
    try:
        with open(path, "rb") as file:
            samples, rate, _ = _decoded(file.fileno(), most_seconds)
    except (soundfile.SoundFileError, RuntimeError):
        raise AudioError(f"{path}: {UNREADABLE}") from None
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from None
    audio = soxr.resample(samples, rate, sample_rate, quality="HQ").clip(-1, 1)
    if not np.isfinite(audio).all() or not len(audio):
        raise AudioError(f"{path}: holds NaN, infinite or too few samples: export it again")
    return audio


def _decoded(descriptor: int, max_seconds: float) -> tuple[Float[np.ndarray, " s"], int, bool]:
    """Samples, their rate, and whether there are more."""
    with soundfile.SoundFile(descriptor, closefd=False) as file:
        rate, channels = file.samplerate, file.channels
        if rate not in RATES or channels > MOST_CHANNELS:
            raise AudioError(f"{channels} channels of {rate} Hz are not accepted: send 16 to 48 kHz mono")
        most, blocks, read = math.ceil(max_seconds * rate), list[np.ndarray](), 0
        while read <= most and len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
            read += len(block)
            blocks.append(block.mean(axis=1))
    if not read:
        raise AudioError("holds no samples: record or export it again")
    return np.concatenate(blocks)[:most], rate, read > most
