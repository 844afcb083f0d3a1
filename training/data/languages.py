"""Guess languages from the script of a text: enough to find labels that cannot be right."""

import unicodedata

HAN_LANGUAGES = ("zh", "yue", "ja", "ko")
"""Languages written with Han characters, at least in part."""


def han_share(text: str) -> float:
    """Return which part of a text's letters are Han characters; 0 without letters."""
    letters = [letter for letter in text if letter.isalpha()]
    return sum(map(_is_han, letters)) / len(letters) if letters else 0.0


def guess_language(text: str) -> str:
    """Return zh or en, for a text whose language is not stated."""
    return "zh" if han_share(text) >= 0.3 else "en"


def contradicts(language: str, text: str) -> bool:
    """Return whether a language label cannot be right for a text.

    That is a Chinese label and no Han character, or most letters Han characters in a language without any. A
    name or a loanword does not count. Latin letters under a Chinese label are an error of the label more
    often than a loanword that is the whole utterance.
    """
    if not any(letter.isalpha() for letter in text):
        return False
    if language.startswith(("zh", "yue")):
        return han_share(text) == 0.0
    return not language.startswith(HAN_LANGUAGES) and han_share(text) > 0.5


def _is_han(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith("CJK UNIFIED IDEOGRAPH")
