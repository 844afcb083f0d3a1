"""Segmentation of a long text into segments that are synthesized one by one, with pauses between them."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sentencex import segment  # pyright: ignore[reportAttributeAccessIssue]  # compiled, without types

from cat_tts.sequences.rows import join_texts
from inference.text.duration import expected_frames
from inference.text.normalization import DIRECTIVE, language_of

SEGMENT_SECONDS = 10.0
"""Expected duration of a segment: the intonation of a sentence or two, and about what models train on."""
FRAME_RATE = 12.5
"""Frames per second of `expected_frames`."""
PARAGRAPH_PAUSE, SENTENCE_PAUSE, CLAUSE_PAUSE, WORD_PAUSE = 0.6, 0.3, 0.12, 0.0
"""Seconds of silence after a segment, by where it ends, beside the silence that was synthesized."""
MAX_PAUSE_SECONDS = 60.0
"""Longest pause of one directive."""

_PAUSE = re.compile(r"\[pause (\d+(?:\.\d+)?) ?(s|ms)\]", re.IGNORECASE)
_PARAGRAPHS = re.compile(r"\n\s*\n")
_SENTENCE_END = re.compile(r"[.!?\u2026\u3002\uff01\uff1f][^\w\s]*$")
_CLAUSE_END = re.compile(r"[,;:\u2013\u2014\uff0c\u3001\uff1b\uff1a-][^\w\s]*$")
_BREAKS = (
    re.compile(
        r"(?<=[;:,\u2013\u2014])(?=[\s\u2e80-\uffff])|(?<=[\uff0c\u3001\uff1b\uff1a\u2026])|(?<= -)(?= )"
    ),
    re.compile(r"(?= (?:and|but|or|nor|so|yet|because|which|who|that|when|while|where|if|as|than|with)\b)"),
    re.compile(r"(?= )"),
    re.compile(r"(?<=.)(?=.)"),
)
"""Where a sentence that is too long is split, the best places first: marks, conjunctions, words, letters."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of a text that is synthesized at once."""

    text: str
    pause_seconds: float
    """Seconds of silence after it."""


@dataclass(frozen=True, kw_only=True)
class SegmentedText:
    """A text as a sequence of segments."""

    segments: tuple[Segment, ...]
    lead_seconds: float = 0.0
    """Seconds of silence before the first segment."""


def split(text: str, segment_seconds: float = SEGMENT_SECONDS) -> SegmentedText:
    """Split a text into segments that are as even as sentences allow.

    A segment never spans two paragraphs, which are separated by an empty line, nor a directive `[pause 1.2s]`
    or `[pause 500ms]`, whose silence replaces the default pause. The segments contain every word of the text.

    Args:
        text: What is to be spoken.
        segment_seconds: Longest expected duration of a segment.

    Returns:
        The segments with the pauses after them.

    Raises:
        ValueError: a directive is malformed, or there is nothing to speak.
    """
    if not segment_seconds > 0:
        raise ValueError(f"segments of {segment_seconds} s: give a positive number of seconds")
    lead, segments = 0.0, list[Segment]()
    for part, pause in _split_at_directives(text):
        new = [Segment(text=words, pause_seconds=after) for words, after in _segments(part, segment_seconds)]
        if new:
            segments += [*new[:-1], replace(new[-1], pause_seconds=pause)]
        elif segments:
            segments[-1] = replace(segments[-1], pause_seconds=segments[-1].pause_seconds + pause)
        else:
            lead += pause
    if not segments:
        raise ValueError(f"the text {text!r} has no letter or digit: there is nothing to speak")
    return SegmentedText(segments=tuple(segments), lead_seconds=lead)


def expected_seconds(text: str) -> float:
    """Return the approximate duration of a spoken text in seconds."""
    return expected_frames(text) / FRAME_RATE


def _split_at_directives(text: str) -> Iterator[tuple[str, float]]:
    """Yield the text between directives, each with the pause of the directive after it."""
    parts = DIRECTIVE.split(text)
    for part, directive in zip(parts[::2], [*parts[1::2], "[pause 0s]"], strict=True):
        yield part, _pause_seconds(directive)


def _pause_seconds(directive: str) -> float:
    match = _PAUSE.fullmatch(directive)
    if not match:
        raise ValueError(f"{directive!r} is no pause: write [pause 1.2s] or [pause 500ms]")
    seconds = float(match[1]) / (1 if match[2].lower() == "s" else 1000)
    if seconds > MAX_PAUSE_SECONDS:
        raise ValueError(f"{directive!r} is too long a pause: {MAX_PAUSE_SECONDS:.0f} s are the most")
    return seconds


def _segments(text: str, segment_seconds: float) -> Iterator[tuple[str, float]]:
    """Yield the segments of a text without directives, each with its default pause."""
    for paragraph in _PARAGRAPHS.split(text):
        sentences = _with_speech(_sentences(paragraph))
        parts = [part for sentence in sentences for part in _split_sentence(sentence, segment_seconds)]
        packed = [words.strip() for words in _pack(parts, segment_seconds)]
        for index, words in enumerate(packed):
            yield words, PARAGRAPH_PAUSE if index == len(packed) - 1 else _pause_after(words)


def _sentences(paragraph: str) -> list[str]:
    """Split a paragraph into sentences.

    Lines are joined first, and invisible characters are removed: sentencex cannot read some of them.
    """
    visible = "".join(c for c in paragraph if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))
    line = ""
    for written in visible.split("\n"):
        line = join_texts(line, " ".join(written.split())) if written.strip() else line
    return list(segment(language_of(line) or "en", line)) if line else []


def _with_speech(parts: Sequence[str]) -> list[str]:
    """Join parts without a letter or digit to a neighbour; return none where nothing is spoken."""
    joined: list[str] = []
    for part in parts:
        if joined and not (_has_speech(part) and _has_speech(joined[-1])):
            joined[-1] += part
        else:
            joined.append(part)
    return [part for part in joined if _has_speech(part)]


def _has_speech(text: str) -> bool:
    return any(map(str.isalnum, text))


def _split_sentence(sentence: str, segment_seconds: float, level: int = 0) -> list[str]:
    """Split a sentence into parts that fit, at the best places, and no more often than needed."""
    if expected_seconds(sentence) <= segment_seconds or level == len(_BREAKS):
        return [sentence]
    parts = _with_speech(_BREAKS[level].split(sentence))
    fitting = [small for part in parts for small in _split_sentence(part, segment_seconds, level + 1)]
    return _pack(fitting, segment_seconds)


def _pack(parts: Sequence[str], segment_seconds: float) -> list[str]:
    """Join neighbours into as few segments as `segment_seconds` allows, and keep the longest short."""
    if not parts:
        return []
    fewest = len(_fill(parts, segment_seconds))
    low, high = 0.0, segment_seconds
    while high - low > 0.1:
        middle = (low + high) / 2
        low, high = (low, middle) if len(_fill(parts, middle)) == fewest else (middle, high)
    return _fill(parts, high)


def _fill(parts: Sequence[str], segment_seconds: float) -> list[str]:
    segments = [parts[0]]
    for part in parts[1:]:
        if expected_seconds(segments[-1] + part) <= segment_seconds:
            segments[-1] += part
        else:
            segments.append(part)
    return segments


def _pause_after(words: str) -> float:
    if _SENTENCE_END.search(words):
        return SENTENCE_PAUSE
    return CLAUSE_PAUSE if _CLAUSE_END.search(words) else WORD_PAUSE
