"""Word and character errors as Seed-TTS-Eval counts them, and as one would count them today.

    python -m eval.metrics.word_errors --pairs pairs.jsonl --out scores.jsonl

A line of the file is `{"truth": ..., "hypothesis": ..., "language": "en"}` (or "zh"); in a file `*.tsv`, the
same three separated by tabs. Each becomes a line of scores.

The official arithmetic is that of `run_wer.py` of github.com/BytedanceSpeech/seed-tts-eval as of commit
752f429 (unchanged since 95003fe), under jiwer 3; jiwer 4 lacks the function that it calls, and its
`process_words` gives the same numbers. It does not understand numbers ("21" is not "twenty-one"), deletes
punctuation without a space in its place ("and/or" becomes "andor"), and keeps the straight apostrophe but not
the curly one.
"""

import argparse
import json
import string
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import jiwer
import zhconv  # pyright: ignore[reportMissingImports]
import zhon.hanzi  # pyright: ignore[reportMissingImports]

from eval.common.results import require_place
from eval.metrics.audio import normalize_english
from inference.text.normalization import Language, normalize
from tokenizer.io.checkpoint import write_text

PUNCTUATION = frozenset(zhon.hanzi.punctuation + string.punctuation) - {"'"}
"""What the official normalization deletes: the 82 marks of zhon 2 and ASCII's, but for the apostrophe."""
_DELETION = str.maketrans(dict.fromkeys(PUNCTUATION))


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Errors of one transcript, counted in words or, for Chinese, in characters."""

    substitutions: int
    deletions: int
    insertions: int
    words: int
    """Number of words, or characters of Chinese, in the truth."""

    @property
    def total(self) -> int:
        """Number of all errors."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float | None:
        """Errors per word, which may exceed 1; None where the truth has no word."""
        return self.total / self.words if self.words else None


@dataclass(frozen=True, kw_only=True)
class OfficialScore:
    """The rates that the official scripts write for one utterance, as fractions (they print percent)."""

    wer: float
    substitutions: float
    """A rate: per part of the normalized truth between single spaces, of which some may be empty, so that
    the three need not add up to `wer`."""
    deletions: float
    insertions: float
    errors: Errors
    truth: str
    """The truth as it was compared."""
    hypothesis: str


def official_wer(truth: str, hypothesis: str, language: Language) -> OfficialScore:
    """Score a transcript with the official arithmetic.

    Traditional characters of a Chinese transcript are first replaced by those of the mainland.

    Args:
        truth: The text that was to be spoken.
        hypothesis: The transcript of the speech.
        language: Language of both.

    Returns:
        The rates, and both texts as they were compared.

    Raises:
        ValueError: If the language is another one, or no word of the truth is left, where the official script
            breaks off too.
    """
    if language == "zh":
        hypothesis = simplify(hypothesis)
    truth, hypothesis = official_text(truth, language), official_text(hypothesis, language)
    errors = count_errors(truth, hypothesis)
    if not errors.words:
        raise ValueError(f"the truth {truth!r} has no word after normalisation: there is nothing to score")
    parts = len(truth.split(" "))
    return OfficialScore(
        wer=errors.total / errors.words,
        substitutions=errors.substitutions / parts,
        deletions=errors.deletions / parts,
        insertions=errors.insertions / parts,
        errors=errors,
        truth=truth,
        hypothesis=hypothesis,
    )


def official_text(text: str, language: Language) -> str:
    """Apply the official normalization to either side, step by step in its order.

    Args:
        text: The truth or a transcript.
        language: Its language.

    Returns:
        Words between spaces; for Chinese, characters between spaces.

    Raises:
        ValueError: If the language is neither en nor zh.
    """
    if language not in ("en", "zh"):
        raise ValueError(f"language {language!r}: choose en or zh")
    text = text.translate(_DELETION)
    text = text.replace("  ", " ")  # one pass: of four spaces, two are left
    return " ".join(text) if language == "zh" else text.lower()


def modern_errors(truth: str, hypothesis: str, language: Language) -> Errors:
    """Count errors after a normalization that knows numbers, spellings and widths.

    English: words after Whisper's normalizer, which gets straight apostrophes, as it knows no others.
    Chinese: characters after `normalize_chinese`.

    Args:
        truth: The text that was to be spoken.
        hypothesis: The transcript of the speech.
        language: Language of both.

    Returns:
        The errors; `words` may be 0.
    """
    if language == "en":
        wanted, transcribed = (normalize_english(text.replace("\u2019", "'")) for text in (truth, hypothesis))
        return count_errors(wanted, transcribed)
    return count_errors(" ".join(normalize_chinese(truth)), " ".join(normalize_chinese(hypothesis)))


def normalize_chinese(text: str) -> str:
    """Normalize a Chinese text to its letters and digits.

    They have standard width, simplified characters and lower case, and numbers are read out (wetext).

    Args:
        text: Any text.

    Raises:
        ValueError: If the text needs wetext, and it is not installed.
    """
    text = normalize(unicodedata.normalize("NFKC", text), "zh")
    return "".join(filter(str.isalnum, simplify(text).lower()))


def simplify(text: str) -> str:
    """Return a Chinese text in the characters and words of the mainland (zhconv)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the file of its dictionary open
        return zhconv.convert(text, "zh-cn")


def count_errors(truth: str, hypothesis: str) -> Errors:
    """Count the errors of texts that are words between spaces.

    Args:
        truth: The text that was to be spoken, normalized.
        hypothesis: The transcript, normalized.

    Returns:
        The errors; `words` may be 0.
    """
    found = jiwer.process_words(truth, hypothesis)
    return Errors(
        substitutions=found.substitutions,
        deletions=found.deletions,
        insertions=found.insertions,
        words=found.hits + found.substitutions + found.deletions,
    )


def read_pairs(path: Path) -> Iterator[tuple[str, str, Language]]:
    """Read the pairs of a file, one for every line that is not empty.

    Args:
        path: A JSONL file, or a table `*.tsv`, which may begin with the names of its columns.

    Yields:
        Truth, hypothesis and language.

    Raises:
        ValueError: If a line lacks one of them, or has another language.
    """
    names = ["truth", "hypothesis", "language"]
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip() or line.split("\t") == names:
            continue
        try:
            if path.suffix == ".tsv":
                truth, hypothesis, language = line.split("\t")
            else:
                record = json.loads(line)
                truth, hypothesis, language = [record[name] for name in names]
            if not isinstance(truth, str) or not isinstance(hypothesis, str) or language not in ("en", "zh"):
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}:{number} is no truth, hypothesis and language (en or zh)") from None
        yield truth, hypothesis, language


def score_pair(truth: str, hypothesis: str, language: Language) -> dict:
    """Score a pair in both ways of counting, for a line of JSON.

    Args:
        truth: The text that was to be spoken.
        hypothesis: The transcript of the speech.
        language: Language of both.

    Returns:
        The fields of `OfficialScore`, with the modern count under `modern`; where there are no official
        numbers, `wer` is None and `error` says why.
    """
    try:
        official = asdict(official_wer(truth, hypothesis, language))
    except ValueError as reason:
        official = {"wer": None, "error": str(reason)}
    modern = asdict(modern_errors(truth, hypothesis, language))
    return {"language": language, **official, "modern": modern}


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0 on success, or 2 after one line on the standard error stream."""
    about = "Score transcripts as Seed-TTS-Eval does."
    parser = argparse.ArgumentParser(prog="python -m eval.metrics.word_errors", description=about)
    parser.add_argument("--pairs", type=Path, required=True, help="*.jsonl or *.tsv")
    parser.add_argument("--out", type=Path, help="file for the scores (default: the standard output)")
    options = parser.parse_args(argv)
    try:
        require_place(options.out)
        lines = [json.dumps(score_pair(*pair), ensure_ascii=False) for pair in read_pairs(options.pairs)]
    except (ValueError, OSError) as error:
        print(f"eval.metrics.word_errors: {error}", file=sys.stderr)
        return 2
    text = "".join(line + "\n" for line in lines)
    if options.out:
        write_text(options.out, text)
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
