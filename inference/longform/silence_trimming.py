"""The ends of a piece of speech: no long silence, and no click, told while the piece is being made."""

import numpy as np
from jaxtyping import Float

FADE_SECONDS = 0.005
"""At both ends of a piece, along a cosine: a click is a step."""
EDGE_SECONDS = 0.08
"""Of silence that a piece keeps at both ends; the pause between pieces is not left to chance."""
BLOCK_SECONDS = 0.02
FLOOR_DB = 35.0
"""So far below the loudest block yet, or below `SPEECH_DB`, a block is silence."""
SPEECH_DB = -20.0
"""The level that the loudest block of speech has at least: prompts are brought to -23 dBFS on average."""


class Edges:
    """Takes the audio of a piece as it comes, and gives what can be heard of it already.

    What may be its end is held back until more sound comes: 5 ms, and all of a silence beyond 80 ms. The
    samples are the same whatever the chunks.

    edges = Edges(24_000)
    audio = [edges.feed(first), edges.feed(second), edges.finish()]
    """

    def __init__(self, sample_rate: int) -> None:
        self._block = round(BLOCK_SECONDS * sample_rate)
        self._margin, self._fade = round(EDGE_SECONDS * sample_rate), round(FADE_SECONDS * sample_rate)
        self._held = np.zeros(0, np.float32)
        self._loudest, self._begun = 10 ** (SPEECH_DB / 10), False
        self._judged = self._sound = self._given = 0
        """Of what is held: how much was judged, and where the last sound ends; and how much was given out."""

    def feed(self, audio: Float[np.ndarray, " s"]) -> Float[np.ndarray, " t"]:
        """What is certain to be heard."""
        self._held = np.concatenate([self._held, audio])
        while len(self._held) - self._judged >= self._block:
            self._judge()
        if not self._begun:
            return self._held[:0]
        return self._give(min(self._judged, max(0, self._end() - self._fade)))

    def finish(self) -> Float[np.ndarray, " t"]:
        """The rest; all of it, where nothing was loud enough to be sound."""
        rest = self._give(self._end() if self._begun else len(self._held))
        ramp = _ramp(min(self._fade, len(rest)))
        rest[len(rest) - len(ramp) :] *= ramp[::-1]
        return rest

    def _judge(self) -> None:
        block = self._held[self._judged : self._judged + self._block]
        power = float(np.square(block, dtype=np.float64).mean())
        self._loudest = max(self._loudest, power)
        if power >= self._loudest * 10 ** (-FLOOR_DB / 10):
            if not self._begun:
                self._begun = True
                silence = max(0, self._judged - self._margin)
                self._held, self._judged = self._held[silence:], self._judged - silence
            self._sound = self._judged + self._block
        self._judged += self._block

    def _end(self) -> int:
        """Where the piece would end, were this all."""
        return min(len(self._held), self._sound + self._margin)

    def _give(self, count: int) -> Float[np.ndarray, " t"]:
        given, self._held = self._held[:count].copy(), self._held[count:]
        ramp = _ramp(self._fade)[self._given : self._given + count]
        given[: len(ramp)] *= ramp
        self._given += count
        self._judged, self._sound = self._judged - count, self._sound - count
        return given


def edged(audio: Float[np.ndarray, " s"], sample_rate: int) -> Float[np.ndarray, " t"]:
    """The same of a whole piece."""
    edges = Edges(sample_rate)
    return np.concatenate([edges.feed(audio), edges.finish()])


def _ramp(count: int) -> Float[np.ndarray, " t"]:
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(count) + 0.5) / max(count, 1))).astype(np.float32)
