"""English text as phonemes: what a small model reads, which cannot learn English spelling beside speaking.

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
    """What `phonemes.json` beside a model's weights holds."""

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
        """Read `symbols`, and the dictionary too: the first take shall not wait for it."""
        dictionary()
        return cls(read_config(Alphabet, Path(path)).symbols)

    @property
    def vocab_size(self) -> int:
        return SPECIAL_IDS + len(self.symbols)

    def encode(self, text: str) -> list[int]:
        """Ids of the phonemes of `text`; a stress that the model has not met is left out.

        Raises:
            ValueError: the text has letters of another script, or nothing of it can be said.
        """
        letters = [one for one in unicodedata.normalize("NFKC", text) if one.isalpha()]
        foreign = "".join(dict.fromkeys(x for x in letters if "LATIN" not in unicodedata.name(x, "")))
        if foreign:
            raise ValueError(f"this model reads English in Latin letters, and cannot read {foreign!r}")
        found = phonemes(text)
        if not found and letters:
            raise ValueError(f"no phonemes for {text!r}: this model reads English")
        return [self._ids.get(one, self._ids.get(one[-1:], UNKNOWN_ID)) for one in found]

    def decode(self, ids: Sequence[int]) -> str:
        """The phonemes in a row; special ids are left out."""
        return "".join(self.symbols[int(i) - SPECIAL_IDS] for i in ids if int(i) >= SPECIAL_IDS)

    def save(self, folder: str | Path) -> None:
        write_config(Path(folder) / PHONEMES_FILE, Alphabet(symbols=self.symbols))


def collect_phonemes(sentences: Iterable[str]) -> PhonemeText:
    """The tokenizer of all phonemes of `sentences`, whose order does not matter."""
    return PhonemeText(sorted({one for sentence in sentences for one in phonemes(sentence)}))


def phonemes(text: str) -> list[str]:
    """Phonemes, vowels with their stress, and punctuation."""
    dictionary()  # complains where there is none
    from hibari import Hibari

    return [one for sentence in Hibari.split_sentences(text) for one in _of_sentence(sentence)]


def sounds(text: str) -> list[str]:
    """Phonemes without stress and without punctuation: what is heard of them."""
    return [one[-1] for one in phonemes(text) if one[-1].isalpha()]


@lru_cache(maxsize=1 << 17)
def _of_sentence(sentence: str) -> tuple[str, ...]:
    return tuple(SYMBOL.findall(dictionary()(sentence)))


@cache
def dictionary(british: bool = False) -> Any:
    """The function from a sentence to its phonemes; it takes most of a second to load, once."""
    try:
        from hibari.g2p import G2P
    except ImportError as error:
        raise ValueError("phonemes need a dictionary: pip install hibari-tts==0.2.1") from error
    return G2P(british=british)
