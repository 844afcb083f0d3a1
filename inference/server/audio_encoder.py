"""Audio encoded while it is being made, for a reader who has no file to go back to.

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
_KINDS: dict[Format, tuple[str, str, dict[str, str]]] = {
    "mp3": ("mp3", "libmp3lame", {"write_xing": "0"}),  # the Xing header would tell a length of 0
    "opus": ("ogg", "libopus", {"page_duration": "80000"}),  # microseconds: one frame of the codec
    "aac": ("adts", "aac", {}),
    "flac": ("flac", "flac", {}),
    "wav": ("wav", "pcm_s16le", {}),
}
"""Container, codec and options of each."""


class Encoder:
    """Takes samples, gives bytes; equal samples give equal bytes, whatever the chunks.

    All but pcm and aac, which cannot, carry the comment that they are AI-generated.

    encoder = Encoder("mp3", 24_000)
    data = encoder.feed(first) + encoder.feed(second) + encoder.finish()
    """

    def __init__(self, kind: Format, sample_rate: int) -> None:
        if kind not in _FORMATS:
            raise ValueError(f"format {kind!r}: choose one of {', '.join(_FORMATS)}")
        self.kind, self.sample_rate, self.samples = kind, sample_rate, 0
        self._made = bytearray()
        self._container: Any = None
        if kind != "pcm":
            container, codec, options = _KINDS[kind]
            flags = {"fflags": "bitexact", "flush_packets": "1"}
            self._container = av.open(self, "w", format=container, options={**flags, **options})
            self._container.metadata["comment"] = AI_GENERATED
            stream = self._container.add_stream(codec, rate=sample_rate, layout="mono")
            self._stream = cast(AudioStream, stream)

    def feed(self, audio: Float[np.ndarray, " s"]) -> bytes:
        """What can be sent now; perhaps nothing yet."""
        pcm = int16(audio)
        if self._container is None:
            return pcm.tobytes()
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = self.sample_rate, self.samples
        self.samples += len(pcm)
        self._container.mux(self._stream.encode(frame))
        return self._taken()

    def finish(self) -> bytes:
        """The rest."""
        if self._container is None:
            return b""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._taken()

    def write(self, data: bytes) -> int:
        """FFmpeg's way out: it sees a file that can only be written, forwards."""
        self._made += data
        return len(data)

    def _taken(self) -> bytes:
        made, self._made = bytes(self._made), bytearray()
        return made


def int16(audio: Float[np.ndarray, " s"]) -> Int16[np.ndarray, " s"]:
    """The samples as `tokenizer.io.audio.save_audio` writes them: little endian, rounded and clamped."""
    scaled = (audio.astype(np.float64) * 32768).round().clip(-32768, 32767)
    return scaled.astype("<i2")
