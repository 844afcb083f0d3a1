"""Audio that a stranger sent: decoded only as far as it may be long, whatever it says of itself."""

import math
from tempfile import TemporaryFile

import numpy as np
import soundfile
from jaxtyping import Float

from tokenizer.audio import AudioError

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
            return _decoded(disk.fileno(), max_seconds)
    except (soundfile.SoundFileError, RuntimeError):
        raise AudioError("not readable as audio: send wav, flac, ogg or mp3") from None


def _decoded(descriptor: int, max_seconds: float) -> tuple[Float[np.ndarray, " s"], int]:
    with soundfile.SoundFile(descriptor, closefd=False) as file:
        rate, channels = file.samplerate, file.channels
        if rate not in RATES or channels > MOST_CHANNELS:
            raise AudioError(f"{channels} channels of {rate} Hz are not accepted: send 16 to 48 kHz mono")
        most, blocks, read = math.ceil(max_seconds * rate), list[np.ndarray](), 0
        while read <= most and len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
            read += len(block)
            blocks.append(block.mean(axis=1))
    if read > most:
        raise AudioError(f"longer than {max_seconds:g} s, the most that this model takes: cut it")
    if not read:
        raise AudioError("holds no samples: record or export it again")
    return np.concatenate(blocks), rate
