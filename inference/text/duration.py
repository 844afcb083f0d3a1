"""How long speaking a text usually takes."""

import math

FRAMES_PER_CHARACTER, FRAMES_PER_EAST_ASIAN_CHARACTER = 0.9, 3.1
"""Usual length of speech at 12.5 frames a second."""
LEAST, MOST, MARGIN = 0.3, 2.0, 25
"""A take lasts at least and at most this many times as long as usual; `MARGIN` frames more are granted."""


def usual_frames(text: str) -> float:
    """About how many frames it takes to speak `text`; East Asian characters take longer than letters."""
    text = text.strip()
    east_asian = sum("\u3040" <= c <= "\u9fff" or "\uac00" <= c <= "\ud7a3" for c in text)
    return east_asian * FRAMES_PER_EAST_ASIAN_CHARACTER + (len(text) - east_asian) * FRAMES_PER_CHARACTER


def usual_limits(text: str) -> tuple[int, int]:
    """The fewest and the most frames that speaking `text` may take."""
    usual = usual_frames(text)
    return max(1, int(LEAST * usual)), MARGIN + math.ceil(MOST * usual)
