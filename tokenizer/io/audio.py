"""Audio files in and out: any wav, flac, ogg or mp3 is read as 24 kHz mono float32, and written from it."""

import os
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
import torch
from jaxtyping import Float
from torch import Tensor

from tokenizer.io.atomic_files import check_target, new_file

FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}
"""Formats that `save_audio` writes: 16-bit PCM for wav and flac, Vorbis for ogg, MPEG layer III for mp3."""
AI_GENERATED = "AI-generated speech (CAT-TTS)"
"""The comment in files of synthesised speech; no longer than an ID3v1 tag holds."""

_BLOCK_SAMPLES = 1 << 16  # libsndfile overflows its stack when given minutes of Vorbis in one call
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class AudioError(ValueError):
    """A file cannot be read or written as audio; one line says its path, what is wrong and what helps."""


def load_audio(path: str | os.PathLike[str], sample_rate: int = 24_000) -> Float[Tensor, " s"]:
    """Read a file of any rate and channel count as mono float32 in [-1, 1] at `sample_rate` Hz.

    Channels are averaged, then resampled (soxr HQ).

    Args:
        path: A wav, flac, ogg or mp3 file.
        sample_rate: In Hz.

    Returns:
        The samples [s].

    Raises:
        AudioError: For anything that is not usable audio: a missing file, a folder, another kind of file, no
            samples, NaN or infinity.
    """
    return resample(*read_file(path), sample_rate, path)


def read_file(path: str | os.PathLike[str]) -> tuple[Float[np.ndarray, " s"], int]:
    """Read an audio file at its own rate.

    Args:
        path: A wav, flac, ogg or mp3 file.

    Returns:
        The mean of the channels as float32 [s], and the sample rate in Hz.

    Raises:
        AudioError: For a missing file, a folder, another kind of file, NaN or infinity.
    """
    try:
        if Path(path).is_dir():
            raise AudioError(f"{path}: is a folder; name one audio file in it")
        if Path(path).exists() and not Path(path).is_file():  # a pipe might never have an end
            raise AudioError(f"{path}: is no file; save the audio in one")
        with open(path, "rb") as file:
            return read_samples(file, path)
    except FileNotFoundError:
        raise AudioError(f"{path}: no such file; check the spelling and the folder") from None
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def read_samples(file: BinaryIO, name: object) -> tuple[Float[np.ndarray, " s"], int]:
    """Read an open audio file at its own rate.

    Args:
        file: The file, open for reading.
        name: What messages call it.

    Returns:
        The mean of the channels as float32 [s], and the sample rate in Hz.

    Raises:
        AudioError: If it is not audio, or has NaN or infinite samples.
    """
    try:
        samples, file_rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, TypeError):  # TypeError: soundfile takes *.raw for headerless samples
        raise AudioError(f"{name}: not readable as audio; convert it to wav, flac, ogg or mp3") from None
    if not np.isfinite(samples).all():
        raise AudioError(f"{name}: holds NaN or infinite samples; export it again from its source")
    return samples.mean(axis=1), file_rate


def resample(
    samples: Float[np.ndarray, " s"], file_rate: float, sample_rate: int, name: object
) -> Float[Tensor, " resampled"]:
    """Resample mono audio (soxr HQ), and clamp it to [-1, 1].

    Args:
        samples: [s] at `file_rate`.
        file_rate: In Hz.
        sample_rate: The new rate in Hz.
        name: What messages call the audio.

    Returns:
        The samples at `sample_rate`.

    Raises:
        AudioError: If there are no samples.
    """
    mono = soxr.resample(samples, file_rate, sample_rate, quality="HQ")
    if mono.size == 0:
        raise AudioError(f"{name}: holds no samples; record or export it again")
    return torch.from_numpy(mono).clamp(-1, 1)


def trim_silence(
    audio: Float[Tensor, " s"], sample_rate: int, *, floor_db: float = 35.0, margin: float = 0.15
) -> Float[Tensor, " trimmed"]:
    """Trim silence at both ends of audio.

    Sound is every 20 ms that are less than `floor_db` below the loudest.

    Args:
        audio: [s] samples.
        sample_rate: In Hz.
        floor_db: Decibels below the loudest 20 ms, from which on it is silence.
        margin: Seconds that stay before and after the sound.

    Returns:
        The part of `audio` from `margin` before its first sound to `margin` after its last.
    """
    frame = sample_rate // 50
    power = audio[: len(audio) // frame * frame].unflatten(0, (-1, frame)).square().mean(1)
    if not len(power):
        return audio
    loud = (power >= power.max() * 10 ** (-floor_db / 10)).nonzero()[:, 0]
    keep = round(margin * sample_rate)
    return audio[max(0, int(loud[0]) * frame - keep) : (int(loud[-1]) + 1) * frame + keep]


def save_audio(
    path: str | os.PathLike[str], audio: Float[Tensor, " s"], sample_rate: int, *, comment: str = ""
) -> None:
    """Write mono `audio` at `sample_rate` Hz, in the format the suffix names (one of `FORMATS`).

    Samples beyond [-1, 1] are clamped. The same audio gives the same bytes every time. The new file replaces
    `path` only once it is whole.

    Args:
        path: The file to write or replace.
        audio: [s] samples.
        sample_rate: In Hz.
        comment: For the file's metadata (wav: ICMT, flac and ogg: Vorbis comment, mp3: ID3).

    Raises:
        AudioError: For a bad path (as `check_output` does), no samples, NaN or infinity, or a rate that the
            format cannot hold.
    """
    check_output(path)
    if audio.dim() != 1 or audio.numel() == 0:
        raise AudioError(f"{path}: audio of shape {list(audio.shape)} cannot be saved; give [s] with s > 0")
    if not audio.isfinite().all():
        raise AudioError(f"{path}: NaN or infinite samples cannot be saved; check what produced them")
    pcm = (audio.detach().cpu().double() * 32768).round().clamp(-32768, 32767).short().numpy()
    kind = FORMATS[Path(path).suffix.lower()]
    try:
        with new_file(path, AudioError) as file:
            _write(file, pcm, sample_rate, kind, comment)
    except soundfile.SoundFileError:
        message = f"{path}: {Path(path).suffix} cannot hold {sample_rate} Hz; choose .wav or .flac"
        raise AudioError(message) from None


def check_output(path: str | os.PathLike[str]) -> None:
    """Check that `save_audio` can write `path`, before any work is spent on its content.

    Args:
        path: The file; its suffix must be one of `FORMATS`.

    Raises:
        AudioError: If it cannot be written.
    """
    check_target(path, FORMATS, AudioError, "audio file")


def _write(file: BinaryIO, pcm: np.ndarray, sample_rate: int, kind: str, comment: str) -> None:
    with soundfile.SoundFile(file, "w", sample_rate, channels=1, format=kind) as writer:
        if comment:
            writer.comment = comment
        for start in range(0, len(pcm), _BLOCK_SAMPLES):
            writer.write(pcm[start : start + _BLOCK_SAMPLES])
    if kind == "OGG":
        file.seek(0)
        pages = _with_serial_zero(bytearray(file.read()))
        file.seek(0)
        file.write(pages)


def _with_serial_zero(pages: bytearray) -> bytearray:
    """Replace the random serial number of an Ogg stream, so that equal audio gives equal bytes (RFC 3533)."""
    start = 0
    while start < len(pages):
        segments = pages[start + 26]
        end = start + 27 + segments + sum(pages[start + 27 : start + 27 + segments])
        pages[start + 14 : start + 18] = bytes(4)  # serial number
        pages[start + 22 : start + 26] = bytes(4)  # the checksum counts itself as zero
        # Ogg's CRC-32 is zlib's with every bit order reversed and no initial or final inversion.
        checksum = zlib.crc32(pages[start:end].translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
        pages[start + 22 : start + 26] = checksum.to_bytes(4, "big").translate(_REVERSED_BITS)
        start = end
    return pages
