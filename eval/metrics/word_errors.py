"""Word and character errors as Seed-TTS-Eval counts them, and as one would count them today.

    python -m eval.metrics.word_errors --pairs pairs.jsonl --out scores.jsonl

A line of the file is `{"truth": ..., "hypothesis": ..., "language": "en"}` (or "zh"); in a file `*.tsv`, the
same three separated by tabs. Each becomes a line of scores.

The official arithmetic is that of `run_wer.py` of github.com/BytedanceSpeech/seed-tts-eval as of commit
752f429 (unchanged since 95003fe), under jiwer 3; of jiwer 4, which lacks the function that it calls, the same
numbers come by `process_words`. It has no idea of numbers ("21" is not "twenty-one"), deletes punctuation
without a space in its place ("and/or" becomes "andor"), and keeps the straight apostrophe but not the curly.
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
"""What the official normalisation deletes: the 82 marks of zhon 2 and ASCII's, but for the apostrophe."""
_DELETION = str.maketrans(dict.fromkeys(PUNCTUATION))


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Words, or characters of Chinese, that are wrong; `rate` may exceed 1."""

    substitutions: int
    deletions: int
    insertions: int
    words: int
    """Of the truth."""

    @property
    def total(self) -> int:
        """All errors."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float | None:
        """Errors per word; None where the truth has none."""
        return self.total / self.words if self.words else None


@dataclass(frozen=True, kw_only=True)
class OfficialScore:
    """The rates that the official scripts write for one utterance, as fractions (they print percent)."""

    wer: float
    substitutions: float
    """A rate: per piece of the normalized truth between single spaces, of which some may be empty, so that
    the three need not add up to `wer`."""
    deletions: float
    insertions: float
    errors: Errors
    truth: str
    """As it was compared."""
    hypothesis: str


def official_wer(truth: str, hypothesis: str, language: Language) -> OfficialScore:
    """Score a transcript; of a Chinese one, traditional characters become those of the mainland first.

    Raises:
        ValueError: nothing of the truth is left to be counted, where the official script breaks off too.
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
    """The official normalisation of either side, step by step in its order."""
    if language not in ("en", "zh"):
        raise ValueError(f"language {language!r}: choose en or zh")
    text = text.translate(_DELETION)
    text = text.replace("  ", " ")  # one pass: of four spaces, two are left
    return " ".join(text) if language == "zh" else text.lower()


def modern_errors(truth: str, hypothesis: str, language: Language) -> Errors:
    """Errors after a normalisation that knows numbers, spellings and widths; `words` may be 0.

    English: words after Whisper's normalizer, which is shown straight apostrophes, as it knows no others.
    Chinese: characters after `normalize_chinese`.
    """
    if language == "en":
        wanted, transcribed = (normalize_english(text.replace("\u2019", "'")) for text in (truth, hypothesis))
        return count_errors(wanted, transcribed)
    return count_errors(" ".join(normalize_chinese(truth)), " ".join(normalize_chinese(hypothesis)))


def normalize_chinese(text: str) -> str:
    """Letters and digits alone, of standard width, simplified, lower case, numbers read out (wetext)."""
    text = normalize(unicodedata.normalize("NFKC", text), "zh")
    return "".join(filter(str.isalnum, simplify(text).lower()))


def simplify(text: str) -> str:
    """Chinese in the characters and words of the mainland (zhconv)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the file of its dictionary open
        return zhconv.convert(text, "zh-cn")


def count_errors(truth: str, hypothesis: str) -> Errors:
    """Count the errors of texts that are words between spaces."""
    found = jiwer.process_words(truth, hypothesis)
    return Errors(
        substitutions=found.substitutions,
        deletions=found.deletions,
        insertions=found.insertions,
        words=found.hits + found.substitutions + found.deletions,
    )


def read_pairs(path: Path) -> Iterator[tuple[str, str, Language]]:
    """Truth, hypothesis and language of every line that is not empty; a table may begin with their names.

    Raises:
        ValueError: a line lacks one of them, or is of another language.
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
    """Both ways of counting, for a line of JSON; `error` where there are no official numbers."""
    try:
        official = asdict(official_wer(truth, hypothesis, language))
    except ValueError as reason:
        official = {"wer": None, "error": str(reason)}
    modern = asdict(modern_errors(truth, hypothesis, language))
    return {"language": language, **official, "modern": modern}


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when it ran, 2 with one line on the standard error stream when it could not."""
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
