"""English text as phonemes, for small models, which cannot learn English spelling as well as speech.

The phonemes are those of `hibari-tts` (misaki's lexicon and rules, a network for unknown words): one letter
each. A stressed vowel is a token of its own; there are none between words, but punctuation has its tokens.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict

from cat_tts.text.special_tokens import SPECIAL_IDS, UNKNOWN_ID
from tokenizer.io.checkpoint import read_config, write_config

PHONEMES_FILE = "phonemes.json"

STRESS = "\u02c8\u02cc"
"""Marks of the primary and the secondary stress."""
SYMBOL = re.compile(f"[{STRESS}]?[^{STRESS}\\s]")


@dataclass(frozen=True, kw_only=True)
class Alphabet:
    """Contents of `phonemes.json` beside a model's weights."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    symbols: tuple[str, ...]
    """The phonemes that the model knows, in the order of their ids."""


class PhonemeText:
    """Ids of phonemes, after the special ones; `symbols` are those that the model knows."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = tuple(symbols)
        self._ids = {symbol: SPECIAL_IDS + i for i, symbol in enumerate(self.symbols)}

    @classmethod
    def load(cls, path: str | Path) -> "PhonemeText":
        """Read `symbols`, and the dictionary too: the first synthesis shall not wait for it."""
        dictionary()
        return cls(read_config(Alphabet, Path(path)).symbols)

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return SPECIAL_IDS + len(self.symbols)

    def encode(self, text: str) -> list[int]:
        """Return the ids of the phonemes of a text; a stress that the model does not know is left out.

        Raises:
            ValueError: The text has letters of another script, or no phonemes.
        """
        letters = [letter for letter in unicodedata.normalize("NFKC", text) if letter.isalpha()]
        foreign = "".join(dict.fromkeys(x for x in letters if "LATIN" not in unicodedata.name(x, "")))
        if foreign:
            raise ValueError(f"this model reads English in Latin letters, and cannot read {foreign!r}")
        symbols = phonemes(text)
        if not symbols and letters:
            raise ValueError(f"no phonemes for {text!r}: this model reads English")
        return [self._ids.get(symbol, self._ids.get(symbol[-1:], UNKNOWN_ID)) for symbol in symbols]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the phonemes as one string; special ids are left out."""
        return "".join(self.symbols[int(i) - SPECIAL_IDS] for i in ids if int(i) >= SPECIAL_IDS)

    def save(self, folder: str | Path) -> None:
        """Write `phonemes.json`."""
        write_config(Path(folder) / PHONEMES_FILE, Alphabet(symbols=self.symbols))


def collect_phonemes(sentences: Iterable[str]) -> PhonemeText:
    """Build the tokenizer of all phonemes of some sentences, whose order does not matter."""
    return PhonemeText(sorted({symbol for sentence in sentences for symbol in phonemes(sentence)}))


def phonemes(text: str) -> list[str]:
    """Return the phonemes of a text, vowels with their stress, and its punctuation.

    Raises:
        ValueError: hibari-tts is not installed.
    """
    dictionary()  # raises where it is missing
    from hibari import Hibari

    return [symbol for sentence in Hibari.split_sentences(text) for symbol in _sentence_phonemes(sentence)]


def phonemes_without_stress(text: str) -> list[str]:
    """Return the phonemes of a text without stress and without punctuation."""
    return [symbol[-1] for symbol in phonemes(text) if symbol[-1].isalpha()]


@lru_cache(maxsize=1 << 17)
def _sentence_phonemes(sentence: str) -> tuple[str, ...]:
    return tuple(SYMBOL.findall(dictionary()(sentence)))


@cache
def dictionary(british: bool = False) -> Any:
    """Load the function from a sentence to its phonemes; that takes most of a second, once.

    Raises:
        ValueError: hibari-tts is not installed.
    """
    try:
        from hibari.g2p import G2P
    except ImportError as error:
        raise ValueError("phonemes need a dictionary: pip install hibari-tts==0.2.1") from error
    return G2P(british=british)
