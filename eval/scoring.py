"""Judge synthesised speech: the list it answers, the score of one take, and the row of a table over many.

The word error rate is that of Whisper base against the target text, the similarity the CAM++ cosine of the
whole prompt and the output. A take that failed or is missing stays in every mean: all its words count as
deleted and its similarity is 0.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.metrics import (
    METRIC_RATE,
    MetricError,
    SpeakerEncoder,
    Transcriber,
    WordErrors,
    corpus_rate,
    macro_rate,
    word_error_rate,
)
from eval.results import mean
from tokenizer import AudioError, load_audio


@dataclass(frozen=True, kw_only=True)
class Line:
    """One utterance to synthesise."""

    utt: str
    prompt_text: str
    prompt_audio: Path
    target_text: str


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a system gave for one line."""

    audio: np.ndarray
    sample_rate: int
    stop: str | None = None
    """Why it ended, where the system says so."""
    compute_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Score:
    """One take, judged."""

    utt: str
    depth: int | None
    seed: int | None
    target: str
    transcript: str
    word_errors: int
    words: int
    similarity: float
    seconds: float
    """Of audio."""
    compute_seconds: float | None
    stop: str | None
    error: str | None
    """Why there is no audio, or no similarity."""


def read_list(path: Path) -> list[Line]:
    """The lines of a `meta.lst`; empty lines are skipped.

    Raises:
        ValueError: a line has not four filled fields, its target no words, its utterance a name that came
            before, or its prompt no file; the message gives file and line.
    """
    lines: dict[str, Line] = {}
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not text.strip():
            continue
        where, fields = f"{path}:{number}", [field.strip() for field in text.strip().split("|")]
        if len(fields) != 4 or not all(fields) or "/" in fields[0]:
            raise ValueError(f"{where} is not utt|prompt_text|prompt_wav|target_text with four filled fields")
        line = Line(
            utt=fields[0], prompt_text=fields[1], prompt_audio=path.parent / fields[2], target_text=fields[3]
        )
        if line.utt in lines:
            raise ValueError(f"{where} repeats the utterance {line.utt}; give each its own name")
        if not line.prompt_audio.is_file():
            raise ValueError(
                f"{where}: there is no prompt {line.prompt_audio}; paths are relative to the list"
            )
        try:
            word_error_rate(line.target_text, "")
        except ValueError as error:
            raise ValueError(f"{where}: target {error}") from error
        lines[line.utt] = line
    if not lines:
        raise ValueError(f"{path} holds no line; give a list utt|prompt_text|prompt_wav|target_text")
    return list(lines.values())


class Judge:
    """The two judging models, with the embeddings of prompts kept from take to take."""

    def __init__(self, assets: Path) -> None:
        self._transcribe = Transcriber(assets)
        self._encoder = SpeakerEncoder(assets)
        self._prompts: dict[Path, np.ndarray] = {}

    def score(
        self, line: Line, output: Output | None, depth: int | None, seed: int | None, error: str | None
    ) -> Score:
        """Judge an output; None is a failure, and `error` its reason."""
        transcript, similarity = "", 0.0
        if output is not None:
            try:
                transcript = self._transcribe(output.audio, output.sample_rate)
                similarity = float(self._prompt(line) @ self._encoder.embed(output.audio, output.sample_rate))
            except (MetricError, AudioError) as reason:
                error = str(reason)
        result = word_error_rate(line.target_text, transcript)
        return Score(
            utt=line.utt,
            depth=depth,
            seed=seed,
            target=line.target_text,
            transcript=transcript,
            word_errors=result.errors,
            words=result.words,
            similarity=similarity,
            seconds=len(output.audio) / output.sample_rate if output else 0.0,
            compute_seconds=output.compute_seconds if output else None,
            stop=output.stop if output else None,
            error=error,
        )

    def _prompt(self, line: Line) -> np.ndarray:
        if line.prompt_audio not in self._prompts:
            audio = load_audio(line.prompt_audio, METRIC_RATE).numpy()
            self._prompts[line.prompt_audio] = self._encoder.embed(audio, METRIC_RATE)
        return self._prompts[line.prompt_audio]


def summarise(scores: list[Score], depth: int | None) -> dict:
    """The row of one depth, over all its utterances and seeds, failures included."""
    chosen = [score for score in scores if score.depth == depth]
    results = [WordErrors(errors=score.word_errors, words=score.words) for score in chosen]
    timed = [score for score in chosen if score.compute_seconds is not None]
    audible = sum(score.seconds for score in timed)
    return {
        "depth": depth,
        "takes": len(chosen),
        "failures": sum(score.error is not None for score in chosen),
        "wer_macro": macro_rate(results),
        "wer_corpus": corpus_rate(results),
        "similarity": mean(score.similarity for score in chosen),
        "stops": dict(Counter(score.stop for score in chosen if score.stop)),
        "audio_seconds": sum(score.seconds for score in chosen),
        "rtf": sum(score.compute_seconds or 0.0 for score in timed) / audible if audible else None,
    }
