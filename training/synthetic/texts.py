"""Collect sentences to be spoken: examples and definitions of Debian's WordNet, or any file of sentences."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

WORDNET = Path("/usr/share/wordnet")
"""Folder in which Debian's `wordnet-base` stores its data."""


def wordnet_texts(folder: Path) -> list[str]:
    """Return the definitions of the WordNet data files in `folder`, and the examples quoted after them.

    Raises:
        FileNotFoundError: a data file is missing.
    """
    files = [folder / f"data.{part}" for part in ("noun", "verb", "adj", "adv")]
    if missing := [file.name for file in files if not file.is_file()]:
        raise FileNotFoundError(
            f"{folder} has no {', '.join(missing)}: install Debian's WordNet (apt-get install wordnet-base) "
            "or give a text file with one sentence a line"
        )
    return [
        text
        for file in files
        for line in file.read_text(encoding="utf-8").splitlines()
        for text in re.findall(r'[^";]+', line.partition("|")[2])
    ]


def speakable(example: str, words: range) -> str | None:
    """Return a text with capital letter and final stop; None unless it is plain English of `words` words."""
    text = " ".join(example.split()).strip(" ,;:-")
    plain = re.fullmatch(r"[A-Za-z][A-Za-z ,;:'?!.-]*", text)
    if not plain or re.search(r"[A-Z]{2}|[A-Za-z]\.|--|\.\.", text[:-1]) or len(text.split()) not in words:
        return None
    return text[0].upper() + text[1:] + ("" if text[-1] in ".?!" else ".")


def sentences(path: Path, words: range) -> list[str]:
    """Return the sentences of `words` words, each once.

    Args:
        path: a WordNet folder, or a text file with one sentence a line.
        words: the allowed numbers of words.
    """
    examples = path.read_text(encoding="utf-8").splitlines() if path.is_file() else wordnet_texts(path)
    return list(dict.fromkeys(text for example in examples if (text := speakable(example, words))))


def utterances(path: Path, seed: int) -> Iterator[str]:
    """Yield texts without end: of ten, six are one sentence, three are two, and one is two or three words.

    Args:
        path: a WordNet folder, or a text file with one sentence a line.
        seed: decides their order.

    Raises:
        ValueError: there is no usable sentence in `path`.
    """
    long, short = sentences(path, range(4, 21)), sentences(path, range(2, 4))
    if not long:
        raise ValueError(f"{path} holds no sentence of 4 to 20 plain English words; name a file with some")
    generator = random.Random(seed)

    def shuffled(texts: list[str]) -> Iterator[str]:
        while True:
            yield from generator.sample(texts, len(texts))

    longs, shorts = shuffled(long), shuffled(short or long)
    while True:
        draw = generator.random()
        if draw < 0.1:
            yield next(shorts)
        else:
            yield next(longs) if draw < 0.7 else f"{next(longs)} {next(longs)}"
