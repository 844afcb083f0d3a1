"""Runaway takes noticed as their frames come: one that goes round in circles, and one that fell silent."""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from inference.engine.job import Guard, StopReason
from inference.text.duration import usual_frames


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What no speech does, in frames of 80 ms.

    "Real speech" is what was measured with the embedded tokenizer: the 50 prompts of a development set, and
    250 clips of LibriSpeech and of learners of English, who hesitate long.
    """

    window: int = 37
    """Frames that are compared with those one period earlier: a clause repeated just once is no circle."""
    longest_period: int = 25
    repeated_share: float = 0.85
    """Of the window's codes of the first codebook. In real speech at most 0.70, in a long pause."""
    same_frames: int = 25
    """Frames in a row that equal the one before in all codes. In real speech at most 19 at depth 1, 9 at
    depth 2, and 3 at depth 4."""
    quiet_db: float = 40.0
    """Below the loudest frame so far, a frame counts as silent: breath and room noise of most recordings."""
    silent_frames: int = 37
    """In a row, while text remains. In real speech at most 9 in the prompts, and 28 in the other clips but
    one, whose speaker says nothing for 3.4 s."""
    trailing_frames: int = 31
    """In a row, once the take is as long as is usual for its text. In the same speech at most 28."""


SPEECH_DB = -20.0
"""The level that the loudest frame of a take has at least: prompts are brought to -23 dBFS on average."""


class Repetition:
    """Says "repetition" when codes go round in circles, or stand still."""

    def __init__(self, thresholds: Thresholds) -> None:
        self.thresholds = thresholds
        self._first: deque[int] = deque(maxlen=thresholds.window + thresholds.longest_period)
        self._before: list[int] = []
        self._same = 0

    def feed(self, codes: Int[Tensor, " k"]) -> StopReason | None:
        """The next frame."""
        frame = codes.tolist()
        self._same = self._same + 1 if frame == self._before else 0
        self._before = frame
        self._first.append(frame[0])
        circles = self._circling_share() >= self.thresholds.repeated_share
        return "repetition" if circles or self._same >= self.thresholds.same_frames else None

    def _circling_share(self) -> float:
        """Of the window's codes, those that equal the one a period earlier, for the period that fits best."""
        first, window = np.array(self._first), self.thresholds.window
        if len(first) <= window:
            return 0.0
        earlier = np.lib.stride_tricks.sliding_window_view(first[:-1], window)
        return float((earlier == first[-window:]).mean(1).max())


class Silence:
    """Says "silence" when a take is silent for long, sooner where `usual_frames` have passed."""

    def __init__(self, usual: float, thresholds: Thresholds) -> None:
        self.usual, self.thresholds = usual, thresholds
        self._loudest_db, self._frames, self._quiet = SPEECH_DB, 0, 0

    def feed(self, audio: Float[np.ndarray, " s"]) -> StopReason | None:
        """The next frame."""
        level_db = 10 * math.log10(max(float(np.square(audio, dtype=np.float64).mean()), 1e-12))
        self._loudest_db = max(self._loudest_db, level_db)
        self._frames += 1
        self._quiet = self._quiet + 1 if level_db < self._loudest_db - self.thresholds.quiet_db else 0
        trailing = self._frames > self.usual
        most = self.thresholds.trailing_frames if trailing else self.thresholds.silent_frames
        return "silence" if self._quiet >= most else None


def runaway_guard(text: str, thresholds: Thresholds | None = None) -> Guard:
    """A guard for one take of `text`, to be given to `Synthesizer.take` or `stream`."""
    thresholds = thresholds or Thresholds()
    repetition, silence = Repetition(thresholds), Silence(usual_frames(text), thresholds)

    def watch(codes: Int[Tensor, " k"], audio: Float[np.ndarray, " s"]) -> StopReason | None:
        reasons = repetition.feed(codes), silence.feed(audio)
        return reasons[0] or reasons[1]

    return watch
