"""Trimming of silence and fading at the ends of a segment, while the segment is being synthesized."""

import numpy as np
from jaxtyping import Float

FADE_SECONDS = 0.005
"""Length of the cosine fade at both ends of a segment, which prevents clicks."""
MARGIN_SECONDS = 0.08
"""Silence that remains at both ends of a segment, so that the pause between segments is well defined."""
BLOCK_SECONDS = 0.02
SILENCE_DB = 35.0
"""A block is silent if it is this far below the loudest block so far, or below `SPEECH_DB`."""
SPEECH_DB = -20.0
"""The loudest block is assumed to have at least this level: prompts are brought to -23 dBFS on average."""


class SilenceTrimmer:
    """Receives the audio of a segment in chunks, and returns what is certain to be part of the result.

    What may be the end is held back until more sound arrives: 5 ms, and all silence beyond 80 ms. The samples
    do not depend on the chunks.

    trimmer = SilenceTrimmer(24_000)
    audio = [trimmer.feed(first), trimmer.feed(second), trimmer.finish()]
    """

    def __init__(self, sample_rate: int) -> None:
        """Start a segment of `sample_rate` samples per second."""
        self._block = round(BLOCK_SECONDS * sample_rate)
        self._margin, self._fade = round(MARGIN_SECONDS * sample_rate), round(FADE_SECONDS * sample_rate)
        self._buffer = np.zeros(0, np.float32)
        self._loudest, self._started = 10 ** (SPEECH_DB / 10), False
        self._classified = self._sound_end = self._emitted = 0
        """Position in the buffer up to which blocks were classified, and where the last sound ends; and how
        many samples were returned."""

    def feed(self, audio: Float[np.ndarray, " s"]) -> Float[np.ndarray, " t"]:
        """Process the next chunk.

        Args:
            audio: Samples [s].

        Returns:
            Samples [t] that are certain, perhaps none.
        """
        self._buffer = np.concatenate([self._buffer, audio])
        while len(self._buffer) - self._classified >= self._block:
            self._classify_block()
        if not self._started:
            return self._buffer[:0]
        return self._emit(min(self._classified, max(0, self._end() - self._fade)))

    def finish(self) -> Float[np.ndarray, " t"]:
        """Return the last samples [t]; everything, where nothing was loud enough to be sound."""
        rest = self._emit(self._end() if self._started else len(self._buffer))
        ramp = _ramp(min(self._fade, len(rest)))
        rest[len(rest) - len(ramp) :] *= ramp[::-1]
        return rest

    def _classify_block(self) -> None:
        """Decide whether the next block is sound, and drop silence before the first sound."""
        block = self._buffer[self._classified : self._classified + self._block]
        power = float(np.square(block, dtype=np.float64).mean())
        self._loudest = max(self._loudest, power)
        if power >= self._loudest * 10 ** (-SILENCE_DB / 10):
            if not self._started:
                self._started = True
                silence = max(0, self._classified - self._margin)
                self._buffer, self._classified = self._buffer[silence:], self._classified - silence
            self._sound_end = self._classified + self._block
        self._classified += self._block

    def _end(self) -> int:
        """Return where the segment would end if no more audio came."""
        return min(len(self._buffer), self._sound_end + self._margin)

    def _emit(self, count: int) -> Float[np.ndarray, " t"]:
        """Remove samples from the buffer, faded in at the beginning of the segment."""
        samples, self._buffer = self._buffer[:count].copy(), self._buffer[count:]
        ramp = _ramp(self._fade)[self._emitted : self._emitted + count]
        samples[: len(ramp)] *= ramp
        self._emitted += count
        self._classified, self._sound_end = self._classified - count, self._sound_end - count
        return samples


def trim_and_fade(audio: Float[np.ndarray, " s"], sample_rate: int) -> Float[np.ndarray, " t"]:
    """Trim silence and fade at the ends of a complete segment, as `SilenceTrimmer` does in chunks.

    Args:
        audio: Samples [s].
        sample_rate: Samples per second.

    Returns:
        Samples [t].
    """
    trimmer = SilenceTrimmer(sample_rate)
    return np.concatenate([trimmer.feed(audio), trimmer.finish()])


def _ramp(count: int) -> Float[np.ndarray, " t"]:
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(count) + 0.5) / max(count, 1))).astype(np.float32)
