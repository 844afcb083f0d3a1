"""The expected duration of speech for a text."""

import math

FRAMES_PER_CHARACTER, FRAMES_PER_EAST_ASIAN_CHARACTER = 0.9, 3.1
"""Typical durations at 12.5 frames a second."""
MIN_RATIO, MAX_RATIO, MARGIN_FRAMES = 0.3, 2.0, 25
"""Limits of the duration relative to the expected one; `MARGIN_FRAMES` are added to the upper limit."""


def expected_frames(text: str) -> float:
    """Return the approximate number of frames of a spoken text; East Asian characters count more.

    Args:
        text: What is to be spoken.

    Returns:
        Frames at 12.5 frames a second.
    """
    text = text.strip()
    east_asian = sum("\u3040" <= c <= "\u9fff" or "\uac00" <= c <= "\ud7a3" for c in text)
    return east_asian * FRAMES_PER_EAST_ASIAN_CHARACTER + (len(text) - east_asian) * FRAMES_PER_CHARACTER


def frame_limits(text: str) -> tuple[int, int]:
    """Return the minimum and the maximum number of frames of a spoken text.

    Args:
        text: What is to be spoken.

    Returns:
        Both limits, in frames at 12.5 frames a second.
    """
    expected = expected_frames(text)
    return max(1, int(MIN_RATIO * expected)), MARGIN_FRAMES + math.ceil(MAX_RATIO * expected)
