"""Errors of a transcript: words in English, characters in Chinese."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jiwer

from eval.metrics.audio import WordErrors, corpus_rate, word_error_rate
from eval.metrics.word_errors import normalize_chinese


@dataclass(frozen=True, kw_only=True)
class TranscriptErrors:
    """Errors of a transcript against one reference; counts that its language does not have are None."""

    words: WordErrors | None = None
    """Errors after Whisper's English normalizer."""
    lower_case: WordErrors | None = None
    """Errors of the text in lower case, split at spaces: punctuation counts."""
    characters: WordErrors | None = None


def count_errors(reference: str, hypothesis: str, language: str) -> TranscriptErrors:
    """Count errors as is usual for the language: characters in Chinese, words elsewhere.

    Args:
        reference: The text that was to be spoken.
        hypothesis: The transcript of the speech.
        language: A language code; Chinese ones begin with "zh".

    Returns:
        The errors; those of the other unit are None.

    Raises:
        ValueError: If nothing of the reference is left after normalization.
    """
    if language.startswith("zh"):
        return TranscriptErrors(characters=_characters(reference, hypothesis))
    found = jiwer.process_words(reference.lower(), hypothesis.lower())
    errors = found.substitutions + found.deletions + found.insertions
    plain = WordErrors(errors=errors, words=len(reference.split()))
    return TranscriptErrors(words=word_error_rate(reference, hypothesis), lower_case=plain)


def rate(
    errors: Sequence[TranscriptErrors], kind: Literal["words", "lower_case", "characters"]
) -> float | None:
    """Return the micro average of one kind of errors over the utterances that have it.

    Args:
        errors: Errors by utterance.
        kind: A field of `TranscriptErrors`.

    Returns:
        Errors per word, or per character of Chinese; None where no utterance has this kind.
    """
    there = [one for found in errors if (one := getattr(found, kind)) is not None]
    return corpus_rate(there) if there else None


def _characters(reference: str, hypothesis: str) -> WordErrors:
    wanted, transcribed = normalize_chinese(reference), normalize_chinese(hypothesis)
    if not wanted:
        raise ValueError(f"text {reference!r} holds no character after normalisation; give a text with some")
    found = jiwer.process_characters(wanted, transcribed)
    errors = found.substitutions + found.deletions + found.insertions
    return WordErrors(errors=errors, words=len(wanted))
