"""Untrusted audio is decoded, and anything else or too much is refused quickly."""

import io
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from inference.voices.untrusted_audio import decode_upload, load_upload
from tokenizer import AudioError, load_audio


def written(samples: np.ndarray, rate: int, kind: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind)
    return file.getvalue()


def wav_header(rate: int, channels: int, data: bytes) -> bytes:
    form = struct.pack("<HHIIHH", 1, channels, rate, (rate * channels) % 2**32, channels, 8)
    riff = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(riff)) + riff


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_audio(voice: np.ndarray, kind: str) -> None:
    stereo = np.stack([voice, np.zeros_like(voice)], 1)
    samples, rate = decode_upload(written(stereo, 24_000, kind), 5)
    assert rate == 24_000 and samples.dtype == np.float32 and abs(len(samples) - len(voice)) < 2000
    assert np.abs(samples).max() == pytest.approx(np.abs(voice).max() / 2, rel=0.2)


def test_exactly_the_longest(voice: np.ndarray) -> None:
    data = written(voice, 24_000, "WAV")
    assert len(decode_upload(data, len(voice) / 24_000)[0]) == len(voice)
    with pytest.raises(AudioError, match=r"longer than 1\.1 s"):
        decode_upload(data, 1.1)


def test_decompression_bombs() -> None:
    """Ten hours of silence in a few kilobytes, and days of samples at a few Hertz."""
    silence = written(np.zeros(24_000 * 600, np.int16), 24_000, "FLAC")
    assert len(silence) < 100_000
    with pytest.raises(AudioError, match="longer than 10 s"):
        decode_upload(silence, 10)
    for rate, channels in ((1, 1), (3999, 1), (2**31, 1), (24_000, 9), (24_000, 1000)):
        with pytest.raises(AudioError, match=f"{channels} channels of {rate} Hz|not readable"):
            decode_upload(wav_header(rate, channels, bytes(4000)), 10)


def test_the_first_seconds_of_a_file(voice: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(written(voice, 24_000, "FLAC"))
    first = load_upload(path, 24_000, 1.0)
    assert np.array_equal(first, load_audio(path)[:24_000].numpy())
    assert len(load_upload(path, 16_000, 9.0)) == 19_200


def test_a_header_that_promises_days_takes_no_memory(voice: np.ndarray, tmp_path: Path) -> None:
    """In FLAC 36 bits from byte 21 on contain the number of samples."""
    data = bytearray(written(voice, 24_000, "FLAC"))
    data[21] |= 0x0F
    path = tmp_path / "a.flac"
    path.write_bytes(data)
    assert soundfile.info(path).frames > 2**35
    with pytest.raises(AudioError, match=r"a\.flac: not readable as audio"):
        load_upload(path, 24_000, 30.0)
    with pytest.raises(AudioError, match="not readable as audio"):
        decode_upload(bytes(data), 30.0)
    path.write_bytes(b"no audio")
    with pytest.raises(AudioError, match=r"a\.flac: not readable as audio"):
        load_upload(path, 24_000, 30.0)


def test_no_audio() -> None:
    with pytest.raises(AudioError, match="holds no samples"):
        decode_upload(wav_header(24_000, 1, b""), 10)
    for data in (b"", b"RIFF", b"hello" * 100, bytes(1000), b"ID3" + bytes(100), b"OggS" + bytes(100)):
        with pytest.raises(AudioError, match=r"not readable as audio|longer|no samples"):
            decode_upload(data, 10)


@pytest.mark.parametrize("turns", [150, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "CAF"])
def test_damaged_files(voice: np.ndarray, kind: str, turns: int) -> None:
    """Damaged files are decoded in part or refused, within the allowed length."""
    good, rng = written(voice[:6000], 24_000, kind), random.Random(kind)
    for _ in range(turns):
        data = bytearray(good)
        for _ in range(rng.choice([1, 3, 20])):
            data[rng.randrange(min(len(data), rng.choice([64, len(data)])))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        try:
            samples, rate = decode_upload(bytes(data), 2)
        except AudioError:
            continue
        assert 0 < len(samples) <= 2 * rate + 1 and samples.ndim == 1
