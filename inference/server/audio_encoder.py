"""Encode audio while it is synthesized, for a reader that cannot seek.

libsndfile goes back to complete the headers of flac and mp3, and holds Opus back for a second; FFmpeg, which
PyAV brings, can write all of them forwards.
"""

from typing import Any, Literal, cast, get_args

import av
import numpy as np
from av.audio.stream import AudioStream
from jaxtyping import Float, Int16

from tokenizer.io.audio import AI_GENERATED

Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]

MEDIA_TYPES: dict[Format, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}

_FORMATS = get_args(Format)
_CONTAINERS: dict[Format, tuple[str, str, dict[str, str]]] = {
    "mp3": ("mp3", "libmp3lame", {"write_xing": "0"}),  # the Xing header would state a length of 0
    "opus": ("ogg", "libopus", {"page_duration": "80000"}),  # microseconds: one frame of the codec
    "aac": ("adts", "aac", {}),
    "flac": ("flac", "flac", {}),
    "wav": ("wav", "pcm_s16le", {}),
}
"""Container, codec and options of each format."""


class StreamEncoder:
    """Encode samples to bytes as they come; equal samples give equal bytes, however they are chunked.

    All formats but pcm and aac, which cannot, carry the comment that the audio is AI-generated.

    encoder = StreamEncoder("mp3", 24_000)
    data = encoder.feed(first) + encoder.feed(second) + encoder.finish()
    """

    def __init__(self, kind: Format, sample_rate: int) -> None:
        if kind not in _FORMATS:
            raise ValueError(f"format {kind!r}: choose one of {', '.join(_FORMATS)}")
        self.kind, self.sample_rate, self.samples = kind, sample_rate, 0
        self._buffer = bytearray()
        self._container: Any = None
        if kind != "pcm":
            container, codec, options = _CONTAINERS[kind]
            flags = {"fflags": "bitexact", "flush_packets": "1"}
            self._container = av.open(self, "w", format=container, options={**flags, **options})
            self._container.metadata["comment"] = AI_GENERATED
            stream = self._container.add_stream(codec, rate=sample_rate, layout="mono")
            self._stream = cast(AudioStream, stream)

    def feed(self, audio: Float[np.ndarray, " s"]) -> bytes:
        """Encode more audio.

        Args:
            audio: Samples [s] between -1 and 1, at the encoder's rate.

        Returns:
            The bytes that can be sent now; perhaps none yet.
        """
        pcm = int16(audio)
        if self._container is None:
            return pcm.tobytes()
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = self.sample_rate, self.samples
        self.samples += len(pcm)
        self._container.mux(self._stream.encode(frame))
        return self._flush()

    def finish(self) -> bytes:
        """End the file, and return its remaining bytes."""
        if self._container is None:
            return b""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._flush()

    def write(self, data: bytes) -> int:
        """Receive bytes from FFmpeg, to which this object is a file that can only be written forwards."""
        self._buffer += data
        return len(data)

    def _flush(self) -> bytes:
        data, self._buffer = bytes(self._buffer), bytearray()
        return data


def int16(audio: Float[np.ndarray, " s"]) -> Int16[np.ndarray, " s"]:
    """Convert samples as `tokenizer.io.audio.save_audio` writes them: little endian, rounded and clamped.

    Args:
        audio: Samples [s] between -1 and 1.

    Returns:
        The same samples [s] as 16-bit integers.
    """
    scaled = (audio.astype(np.float64) * 32768).round().clip(-32768, 32767)
    return scaled.astype("<i2")
