"""Encoders that never go back: length, loudness, and the same bytes whatever the chunks."""

import io

import av
import numpy as np
import pytest

from inference.server.audio_encoder import MEDIA_TYPES, Format, StreamEncoder, int16
from tests.helpers.serving import decoded
from tokenizer.io.audio import AI_GENERATED

LOSSY: dict[Format, int] = {"mp3": 3 * 576, "opus": 0, "aac": 3 * 1024}
"""How many samples there may be around the audio."""


@pytest.fixture
def audio(voice: np.ndarray) -> np.ndarray:
    return voice[:24_000]


def encoded(kind: Format, audio: np.ndarray, chunk: int) -> list[bytes]:
    encoder = StreamEncoder(kind, 24_000)
    parts = [encoder.feed(audio[start : start + chunk]) for start in range(0, len(audio), chunk)]
    return [*parts, encoder.finish()]


@pytest.mark.parametrize("kind", MEDIA_TYPES)
def test_chunks_change_nothing_and_leave_early(kind: Format, audio: np.ndarray) -> None:
    parts = encoded(kind, audio, 1920)
    assert b"".join(parts) == b"".join(encoded(kind, audio, 24_000)) == b"".join(encoded(kind, audio, 777))
    assert sum(map(len, parts[:6])) > 0.2 * sum(map(len, parts)), "held back"


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_lossless(kind: Format, audio: np.ndarray) -> None:
    data = b"".join(encoded(kind, audio, 1920))
    assert np.array_equal(decoded(data), int16(audio)) and AI_GENERATED.encode() in data


@pytest.mark.parametrize("kind", LOSSY)
def test_lossy(kind: Format, audio: np.ndarray) -> None:
    """The wave is there, at most a codec's delay later."""
    data = b"".join(encoded(kind, audio, 1920))
    audio_out = decoded(data).astype(float)
    assert len(audio) <= len(audio_out) <= len(audio) + LOSSY[kind]
    part = audio[4000:8000]
    power = np.convolve(audio_out[4000:10_000] ** 2, np.ones(4000), "valid")
    likeness = np.correlate(audio_out[4000:10_000], part, "valid") / np.sqrt(power * (part**2).sum())
    assert likeness.max() > 0.95
    assert (AI_GENERATED.encode() in data) == (kind != "aac")


def test_pcm_by_hand() -> None:
    audio = np.array([0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 1.5 / 32768], np.float32)
    expected = [0, 16384, -16384, 32767, -32768, 32767, -32768, 2]
    assert int16(audio).tolist() == expected
    assert encoded("pcm", audio, 3)[0] == b"\x00\x00\x00\x40\x00\xc0"


def test_wav_of_unknown_length_can_be_read_from_its_beginning(audio: np.ndarray) -> None:
    data = encoded("wav", audio, 1920)[0]
    with av.open(io.BytesIO(data)) as file:
        assert (file.streams.audio[0].rate, file.streams.audio[0].channels) == (24_000, 1)


def test_other_formats_are_refused() -> None:
    with pytest.raises(ValueError, match="format 'ape': choose one of mp3, opus"):
        StreamEncoder("ape", 24_000)  # pyright: ignore[reportArgumentType]
