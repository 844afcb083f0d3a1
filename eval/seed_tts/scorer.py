"""Score the output of a system, as a line of JSON for each utterance.

An utterance that failed or is missing counts: all its words as deleted, and its similarity as 0.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile

from eval.assets import sha256
from eval.metrics.audio import MetricError
from eval.metrics.backends import Recognizer, Speakers
from eval.metrics.word_errors import Errors, modern_errors, official_wer
from eval.seed_tts.groups import Spoken
from eval.seed_tts.utterance_list import UtteranceLine
from inference.text.normalization import Language
from tokenizer import AudioError, load_audio


@dataclass(frozen=True, kw_only=True)
class Score:
    """The scores of one utterance."""

    depth: int | None
    seed: int | None
    utt: str
    target: str
    transcript: str
    wer: float
    """Official, as are the three rates."""
    substitutions: float
    deletions: float
    insertions: float
    official: Errors
    modern: Errors
    similarity: float | None
    """None where the list names no prompt."""
    seconds: float
    stop: str | None
    wav_sha256: str | None
    """None where there is no file."""
    error: str | None
    """Why it counts as missing, or why its similarity is 0."""

    @property
    def missing(self) -> bool:
        """Whether there is no audio."""
        return not self.seconds


class Scorer:
    """A scorer of utterances with a recognizer and a speaker encoder; it caches the embeddings of prompts.

    Args:
        recognizer: What transcribes.
        speakers: What embeds speakers.
        language: The language, which decides how words are counted.
    """

    def __init__(self, recognizer: Recognizer, speakers: Speakers, language: Language) -> None:
        self.recognizer, self.speakers = recognizer, speakers
        self.language: Language = language
        self._prompts: dict[Path, np.ndarray] = {}

    def score(self, spoken: Spoken) -> Score:
        """Score one file, or its absence.

        Args:
            spoken: The output of a system for one line.

        Returns:
            The score; if there is no audio, all words count as deleted and the similarity is 0.

        Raises:
            ValueError: If the prompt cannot be embedded.
        """
        line, wav = spoken.line, spoken.wav
        transcript, seconds, error = "", 0.0, spoken.error
        similarity = None if line.prompt_audio is None else 0.0
        digest = file_digest(wav) if error is None else None
        if error is None and digest is None:
            error = "there is no file"
        elif error is None:
            try:
                audio, rate = _read(wav)
                transcript, seconds = self.recognizer.transcribe(wav), len(audio) / rate
                similarity = self._similarity(line, audio, rate)
            except (AudioError, MetricError) as reason:
                error = str(reason).removeprefix(f"{wav}: ")
        score = official_wer(line.target_text, transcript, self.language)
        return Score(
            depth=spoken.depth,
            seed=spoken.seed,
            utt=line.utt,
            target=line.target_text,
            transcript=transcript,
            wer=score.wer,
            substitutions=score.substitutions,
            deletions=score.deletions,
            insertions=score.insertions,
            official=score.errors,
            modern=modern_errors(line.target_text, transcript, self.language),
            similarity=similarity,
            seconds=seconds,
            stop=spoken.stop,
            wav_sha256=digest,
            error=error,
        )

    def _similarity(self, line: UtteranceLine, audio: np.ndarray, rate: int) -> float | None:
        if line.prompt_audio is None:
            return None
        if line.prompt_audio not in self._prompts:
            try:
                self._prompts[line.prompt_audio] = self._embed(*_read(line.prompt_audio))
            except MetricError as reason:
                raise ValueError(f"the prompt {line.prompt_audio}: {reason}; mend the list") from None
        return float(self._prompts[line.prompt_audio] @ self._embed(audio, rate))

    def _embed(self, audio: np.ndarray, rate: int) -> np.ndarray:
        embedding = np.asarray(self.speakers.encoder.embed(audio, rate), np.float64)
        return embedding / np.linalg.norm(embedding)


def file_digest(path: Path) -> str | None:
    """Return the SHA-256 of a file, or None where there is none.

    Args:
        path: The file.
    """
    return sha256(path) if path.is_file() else None


def as_record(score: Score) -> dict:
    """Return a score as a line of JSON holds it.

    Args:
        score: The score.
    """
    return asdict(score)


def from_record(record: dict) -> Score:
    """Return the score of a record, the inverse of `as_record`.

    Args:
        record: A line of JSON.
    """
    counts = {name: Errors(**record[name]) for name in ("official", "modern")}
    return Score(**{**record, **counts})


def _read(path: Path) -> tuple[np.ndarray, int]:
    """Return mono audio [s] at the rate of the file, and the rate."""
    try:
        rate = soundfile.info(path).samplerate
    except soundfile.SoundFileError:
        rate = 1  # load_audio says what is wrong
    return load_audio(path, rate).numpy(), rate
