"""Opus through libsndfile: a plain baseline, a codec that everybody has."""

import io

import numpy as np
import soundfile

LOWEST, HIGHEST = 6.0, 256.0
"""kbit/s of one channel that libsndfile's compression levels 1 and 0 ask for."""


def opus(audio: np.ndarray, sample_rate: int, kbps: float) -> tuple[np.ndarray, float]:
    """Encode and decode audio with Opus at a target bitrate.

    Opus runs at 8, 12, 16, 24 or 48 kHz. At 6 kbit/s it is far above its design's lower end and far above
    what a neural codec needs: read it as the price of a codec without a model.

    Args:
        audio: Mono audio [s].
        sample_rate: Its rate in Hz.
        kbps: The target in kbit/s, `LOWEST` to `HIGHEST`.

    Returns:
        The decoded audio [s], and the bit/s that the Ogg file really takes.

    Raises:
        ValueError: If `kbps` is outside what libsndfile offers.
    """
    if not LOWEST <= kbps <= HIGHEST:
        raise ValueError(f"Opus at {kbps} kbit/s: choose {LOWEST:.0f} to {HIGHEST:.0f}")
    level = 1 - (kbps - LOWEST) / (HIGHEST - LOWEST)
    file = io.BytesIO()
    with soundfile.SoundFile(
        file, "w", sample_rate, 1, format="OGG", subtype="OPUS", compression_level=level
    ) as writer:
        writer.write(audio)
    bits = 8 * len(file.getvalue())
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    return decoded[: len(audio)], bits * sample_rate / len(audio)
