"""Stopping rules that detect runaway speech frame by frame: endless repetition and long silence."""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from inference.engine.job import Guard, StopReason
from inference.text.duration import expected_frames


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Limits that no real speech reaches, in frames of 80 ms.

    "Real speech" was measured with the embedded tokenizer: the 50 prompts of a development set, and 250 clips
    of LibriSpeech and of learners of English, who hesitate long.
    """

    window: int = 37
    """Frames that are compared with those one period earlier: a clause that is repeated once is accepted."""
    longest_period: int = 25
    repeated_share: float = 0.85
    """Share of the window's codes of the first codebook. In real speech at most 0.70, in a long pause."""
    same_frames: int = 25
    """Frames in a row that equal the one before in all codes. In real speech at most 19 at depth 1, 9 at
    depth 2, and 3 at depth 4."""
    quiet_db: float = 40.0
    """A frame this far below the loudest frame so far counts as silent: breath and room noise of most
    recordings."""
    silent_frames: int = 37
    """Silent frames in a row while text remains. In real speech at most 9 in the prompts, and 28 in the other
    clips but one, whose speaker says nothing for 3.4 s."""
    trailing_frames: int = 31
    """Silent frames in a row after the expected duration of the text. In real speech at most 28."""


SPEECH_DB = -20.0
"""The loudest frame is assumed to have at least this level: prompts are brought to -23 dBFS on average."""


class Repetition:
    """Detector that reports "repetition" when the codes repeat periodically, or do not change."""

    def __init__(self, thresholds: Thresholds) -> None:
        """Start before the first frame."""
        self.thresholds = thresholds
        self._first: deque[int] = deque(maxlen=thresholds.window + thresholds.longest_period)
        self._previous: list[int] = []
        self._same = 0

    def feed(self, codes: Int[Tensor, " k"]) -> StopReason | None:
        """Process the codes [k] of the next frame; return "repetition" once it is detected."""
        frame = codes.tolist()
        self._same = self._same + 1 if frame == self._previous else 0
        self._previous = frame
        self._first.append(frame[0])
        periodic = self._periodic_share() >= self.thresholds.repeated_share
        return "repetition" if periodic or self._same >= self.thresholds.same_frames else None

    def _periodic_share(self) -> float:
        """Return the share of the window's codes that equal those one period earlier, at the best period."""
        first, window = np.array(self._first), self.thresholds.window
        if len(first) <= window:
            return 0.0
        earlier = np.lib.stride_tricks.sliding_window_view(first[:-1], window)
        return float((earlier == first[-window:]).mean(1).max())


class Silence:
    """Detector that reports "silence" when speech pauses for long, sooner after the expected duration."""

    def __init__(self, expected: float, thresholds: Thresholds) -> None:
        """Start before the first frame of a text that is expected to take `expected` frames."""
        self.expected, self.thresholds = expected, thresholds
        self._loudest_db, self._frames, self._quiet = SPEECH_DB, 0, 0

    def feed(self, audio: Float[np.ndarray, " s"]) -> StopReason | None:
        """Process the audio [s] of the next frame; return "silence" once it is detected."""
        level_db = 10 * math.log10(max(float(np.square(audio, dtype=np.float64).mean()), 1e-12))
        self._loudest_db = max(self._loudest_db, level_db)
        self._frames += 1
        self._quiet = self._quiet + 1 if level_db < self._loudest_db - self.thresholds.quiet_db else 0
        trailing = self._frames > self.expected
        limit = self.thresholds.trailing_frames if trailing else self.thresholds.silent_frames
        return "silence" if self._quiet >= limit else None


def runaway_guard(text: str, thresholds: Thresholds | None = None) -> Guard:
    """Create a guard that ends runaway speech, for `Synthesizer.synthesize` or `stream`.

    Args:
        text: What is to be spoken; it determines the expected duration.
        thresholds: When to stop; by default `Thresholds()`.

    Returns:
        A guard with its own state, for one request.
    """
    thresholds = thresholds or Thresholds()
    repetition, silence = Repetition(thresholds), Silence(expected_frames(text), thresholds)

    def guard(codes: Int[Tensor, " k"], audio: Float[np.ndarray, " s"]) -> StopReason | None:
        reasons = repetition.feed(codes), silence.feed(audio)
        return reasons[0] or reasons[1]

    return guard
