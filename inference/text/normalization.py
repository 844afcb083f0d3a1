"""Text normalization: numbers, dates, times, money and units are spelt out for English and Chinese.

The grammars are those of wetext.
"""

import logging
import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from wetext import Normalizer

logger = logging.getLogger(__name__)

Language = Literal["en", "zh"]

DIRECTIVE = re.compile(r"(\[\s*pause(?![a-z])[^\]\n]*\]?)", re.IGNORECASE)
"""Pause directives are left unchanged, also malformed ones, which inference.text.segmentation refuses."""

_TITLES = ("Mr.", "Mrs.", "Ms.", "Dr.", "Capt.", "Lt.", "Gen.", "Rev.", "Gov.")
_NEEDS_GRAMMAR = {
    "en": re.compile(rf"[\d$£€¥%&@#+=°½¼¾²³±©™§]|\b(?:{'|'.join(map(re.escape, _TITLES))})"),
    "zh": re.compile(r"\d"),
}
_BOUNDARY = re.compile(
    r"""(\s*[\r\n\t"“”\[\](){}<>\\]+\s*|\s{2,}|[^\S ]|(?<=[.!?])"""
    + "".join(rf"(?<!\b{re.escape(title)})" for title in _TITLES)
    + " (?=[A-Z]))"
)
"""Where a text is split before the grammars see it: they refuse or change these characters, and they change
abbreviations in every sentence that they process."""
MAX_CHARACTERS = 200
"""Length of a part that a grammar processes at once: it blocks all other threads, which a server has."""
_PARTS = re.compile(
    rf"[\s\S]{{1,{MAX_CHARACTERS}}}(?:[\s\u3001\u3002\uff01\uff0c\uff1b\uff1f]|$)|[\s\S]{{1,{MAX_CHARACTERS}}}"
)
"""Parts of a longer sentence, which end at a space or a Chinese punctuation mark where there is one."""
_CURRENCIES = {"$": ("dollars", "cents"), "£": ("pounds", "pence"), "€": ("euros", "cents")}
_REPAIRS = (
    (re.compile("\u2212"), "-"),
    (re.compile(r"(\d+(?:[.,]\d+)*) ?([€£])(?!\d)"), r"\2\1"),
    (re.compile(r"#(?=\d)|\b[Nn]o\. ?(?=\d)"), "number "),
    (re.compile(r"~(?=\d)"), "about "),
    (re.compile(r"\b(1\d)00s\b"), r"\1 hundreds"),
    (re.compile(r"\b(\d)000s\b"), r"\1 thousands"),
    (re.compile(r"\b(1\d|20)([1-9]0)s\b"), r"\1 '\2s"),
)
"""English that the grammar of wetext 0.1.8 refuses or misreads, and replacements that it reads well."""
_THOUSAND = re.compile(r"(?<![\d.,])([$£€]?)1,(\d{3})(?:\.(\d+))?(?!,?\d| [mb]illion)")


def normalize(text: str, language: Language | None = None) -> str:
    """Return the text as it is spoken; parts that need no change are returned character for character.

    A word that the grammars cannot read is left unchanged, with a warning.

    Args:
        text: What a user wrote.
        language: The language of the text. By default each sentence has that of its script: Chinese with Han
            characters, English with Latin letters only, else it is left unchanged.

    Returns:
        The text with numbers and signs spelt out.

    Raises:
        ValueError: the text needs wetext, and it is not installed.
    """
    unread: list[str] = []
    whole = language or language_of(text)
    spoken = ""
    for number, part in enumerate(DIRECTIVE.split(text)):
        if number % 2:
            spoken += part
            continue
        for index, chunk in enumerate(_BOUNDARY.split(part)):
            local = language or (language_of(chunk) if any(map(str.isalpha, chunk)) else whole)
            if index % 2 or local is None or not _NEEDS_GRAMMAR[local].search(chunk):
                spoken += chunk
            else:
                stripped = chunk.strip(" ")
                read = _read(stripped, local, unread)
                if stripped.endswith(".") and not read.endswith("."):  # lost with that of "p.m."
                    read += "."
                if not spoken.strip() or spoken.rstrip()[-1] in ".!?":
                    read = read[:1].upper() + read[1:]
                spoken += chunk.replace(stripped, read)
    if unread:
        logger.warning("left as written, since it cannot be spelt out: %s", ", ".join(dict.fromkeys(unread)))
    return spoken


def language_of(text: str) -> Language | None:
    """Detect Chinese or English by the script of the letters.

    Args:
        text: Any text.

    Returns:
        "zh" with Han characters, "en" with Latin letters only; None where there is another script.
    """
    letters = [character for character in text if character.isalpha()]
    if not all(map(_is_latin_or_han, letters)):
        return None
    return "zh" if any(letter >= "\u3400" for letter in letters) else "en"


def _is_latin_or_han(letter: str) -> bool:
    latin = letter < "\u0250" or "\u1e00" <= letter <= "\u1eff"
    return latin or "\u3400" <= letter <= "\u9fff" or "\uf900" <= letter <= "\ufaff" or letter >= "\U00020000"


def _read(chunk: str, language: Language, unread: list[str]) -> str:
    """Apply the grammar to the chunk; where that refuses it, word by word."""
    if len(chunk) > MAX_CHARACTERS + 1:
        parts = [(part, part.rstrip(" ")) for part in _PARTS.findall(chunk)]
        return "".join(_read(stripped, language, unread) + part[len(stripped) :] for part, stripped in parts)
    if language == "en":
        for pattern, repair in _REPAIRS:
            chunk = pattern.sub(repair, chunk)
        chunk = _THOUSAND.sub(_one_thousand, chunk)
    try:
        return str(_normalizer(language).normalize(chunk))
    except (AssertionError, IndexError):  # wetext's answer to an input that its grammar has no path for
        if " " in chunk:
            return " ".join(_read(word, language, unread) for word in chunk.split(" "))
        unread.append(chunk)
        return chunk


def _one_thousand(match: re.Match[str]) -> str:
    """Write 1,234 as `1 thousand 234`: wetext would omit the one."""
    symbol, rest, decimals = match[1], match[2].lstrip("0"), match[3]
    if symbol:
        whole, hundredths = _CURRENCIES[symbol]
        part = f"and {int(decimals.ljust(2, '0')[:2])} {hundredths}" if int(decimals or 0) else ""
    else:
        whole = ""
        part = f"point {' '.join(decimals)}" if decimals else ""
    return " ".join(filter(None, ["1 thousand", rest, whole, part]))


def _normalizer(language: Language) -> "Normalizer":
    try:
        from wetext import Normalizer
    except ModuleNotFoundError:
        cure = "pip install wetext, or leave the text as it is (--no-normalize)"
        raise ValueError(f"to spell out numbers and signs, wetext is missing: {cure}") from None
    return Normalizer(lang=language, operator="tn")
