"""A long text in pieces that are spoken one by one, and the silence between them."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sentencex import segment  # pyright: ignore[reportAttributeAccessIssue]  # compiled, without types

from cat_tts.sequences.rows import join_texts
from inference.text.duration import usual_frames
from inference.text.normalization import DIRECTIVE, language_of

PIECE_SECONDS = 10.0
"""Usual length of a piece: the melody of a sentence or two, and about what models are trained on."""
FRAME_RATE = 12.5
"""Of `usual_frames`."""
PARAGRAPH, SENTENCE, CLAUSE, WORD = 0.6, 0.3, 0.12, 0.0
"""Seconds of silence after a piece, by where it ends; what the takes themselves have is not counted."""
MAX_PAUSE_SECONDS = 60.0
"""Of one directive."""

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
"""Where a sentence that is too long is broken, the best places first: marks, conjunctions, words, letters."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What is spoken in one go."""

    text: str
    pause_seconds: float
    """Of silence after it."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """A text as it is read out."""

    pieces: tuple[Piece, ...]
    lead_seconds: float = 0.0
    """Of silence before the first piece."""


def split(text: str, piece_seconds: float = PIECE_SECONDS) -> Script:
    """The pieces of a text, each usually spoken in up to `piece_seconds`, as even as sentences allow.

    A piece never reaches over a paragraph, which an empty line ends, nor over a directive `[pause 1.2s]` or
    `[pause 500ms]`, whose silence takes the place of the usual one. The pieces hold every word of the text.

    Raises:
        ValueError: a directive is malformed, or there is nothing to speak.
    """
    if not piece_seconds > 0:
        raise ValueError(f"pieces of {piece_seconds} s: give a positive number of seconds")
    lead, pieces = 0.0, list[Piece]()
    for passage, pause in _passages(text):
        spoken = [Piece(text=part, pause_seconds=after) for part, after in _pieces(passage, piece_seconds)]
        if spoken:
            pieces += [*spoken[:-1], replace(spoken[-1], pause_seconds=pause)]
        elif pieces:
            pieces[-1] = replace(pieces[-1], pause_seconds=pieces[-1].pause_seconds + pause)
        else:
            lead += pause
    if not pieces:
        raise ValueError(f"the text {text!r} has no letter or digit: there is nothing to speak")
    return Script(pieces=tuple(pieces), lead_seconds=lead)


def usual_seconds(text: str) -> float:
    """About how long it takes to speak `text`."""
    return usual_frames(text) / FRAME_RATE


def _passages(text: str) -> Iterator[tuple[str, float]]:
    """The text between directives, each with the pause of the directive after it."""
    parts = DIRECTIVE.split(text)
    for passage, directive in zip(parts[::2], [*parts[1::2], "[pause 0s]"], strict=True):
        yield passage, _pause_seconds(directive)


def _pause_seconds(directive: str) -> float:
    match = _PAUSE.fullmatch(directive)
    if not match:
        raise ValueError(f"{directive!r} is no pause: write [pause 1.2s] or [pause 500ms]")
    seconds = float(match[1]) / (1 if match[2].lower() == "s" else 1000)
    if seconds > MAX_PAUSE_SECONDS:
        raise ValueError(f"{directive!r} is too long a pause: {MAX_PAUSE_SECONDS:.0f} s are the most")
    return seconds


def _pieces(passage: str, piece_seconds: float) -> Iterator[tuple[str, float]]:
    for paragraph in _PARAGRAPHS.split(passage):
        sentences = _with_speech(_sentences(paragraph))
        parts = [part for sentence in sentences for part in _broken(sentence, piece_seconds)]
        packed = [piece.strip() for piece in _packed(parts, piece_seconds)]
        for index, piece in enumerate(packed):
            yield piece, PARAGRAPH if index == len(packed) - 1 else _pause_after(piece)


def _sentences(paragraph: str) -> list[str]:
    """Lines are joined first, and signs that nobody sees removed: sentencex cannot read some of them."""
    visible = "".join(c for c in paragraph if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))
    line = ""
    for written in visible.split("\n"):
        line = join_texts(line, " ".join(written.split())) if written.strip() else line
    return list(segment(language_of(line) or "en", line)) if line else []


def _with_speech(parts: Sequence[str]) -> list[str]:
    """The parts, those without a letter or digit put to a neighbour; none where nothing is spoken."""
    joined: list[str] = []
    for part in parts:
        if joined and not (_speaks(part) and _speaks(joined[-1])):
            joined[-1] += part
        else:
            joined.append(part)
    return [part for part in joined if _speaks(part)]


def _speaks(text: str) -> bool:
    return any(map(str.isalnum, text))


def _broken(sentence: str, piece_seconds: float, level: int = 0) -> list[str]:
    """The sentence in parts that fit, broken where it hurts least, and no oftener than needed."""
    if usual_seconds(sentence) <= piece_seconds or level == len(_BREAKS):
        return [sentence]
    parts = _with_speech(_BREAKS[level].split(sentence))
    fitting = [small for part in parts for small in _broken(part, piece_seconds, level + 1)]
    return _packed(fitting, piece_seconds)


def _packed(parts: Sequence[str], piece_seconds: float) -> list[str]:
    """Neighbours put together into as few pieces as `piece_seconds` allows, the longest as short as can."""
    if not parts:
        return []
    fewest = len(_filled(parts, piece_seconds))
    low, high = 0.0, piece_seconds
    while high - low > 0.1:
        middle = (low + high) / 2
        low, high = (low, middle) if len(_filled(parts, middle)) == fewest else (middle, high)
    return _filled(parts, high)


def _filled(parts: Sequence[str], piece_seconds: float) -> list[str]:
    pieces = [parts[0]]
    for part in parts[1:]:
        if usual_seconds(pieces[-1] + part) <= piece_seconds:
            pieces[-1] += part
        else:
            pieces.append(part)
    return pieces


def _pause_after(piece: str) -> float:
    if _SENTENCE_END.search(piece):
        return SENTENCE
    return CLAUSE if _CLAUSE_END.search(piece) else WORD
