"""MP3 through FFmpeg's LAME: a plain baseline that everybody has."""

import io
from typing import Any

import numpy as np

KBPS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
"""What MPEG-2 Layer III offers at 16, 22.05 and 24 kHz."""
LAME_GAIN = 0.95
"""What LAME multiplies everything with at a constant bitrate, so that less of it clips."""


def mp3(audio: np.ndarray, sample_rate: int, kbps: int) -> tuple[np.ndarray, float]:
    """Encode and decode audio with MP3 at a constant bitrate.

    Args:
        audio: Mono audio [s].
        sample_rate: Its rate in Hz.
        kbps: The bitrate in kbit/s, one of `KBPS`.

    Returns:
        Audio [s] that is not delayed, since the file's header gives the delay, and is as loud as it was; and
        the bit/s that the file takes.

    Raises:
        ValueError: If `kbps` is not offered at these rates.
    """
    import av  # of the extra serve, like FFmpeg with it

    if kbps not in KBPS:
        raise ValueError(f"MP3 at {kbps} kbit/s: choose one of {', '.join(map(str, KBPS))}")
    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as container:
        stream: Any = container.add_stream("libmp3lame", rate=sample_rate, layout="mono")
        stream.bit_rate = 1000 * kbps
        frame = av.AudioFrame.from_ndarray(audio[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = sample_rate
        container.mux([*stream.encode(frame), *stream.encode(None)])
    bits = 8 * len(file.getvalue())
    file.seek(0)
    written: Any = av.open(file, "r")
    with written:
        parts = [frame.to_ndarray()[0] for frame in written.decode(audio=0)]
    return np.concatenate(parts)[: len(audio)] / LAME_GAIN, bits * sample_rate / len(audio)
