"""Score what a system spoke, one line of JSON an utterance. What failed or is missing stays in: all its words
count as deleted, and its similarity is 0."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile

from eval.assets import sha256
from eval.metrics.audio import MetricError
from eval.metrics.backends import Recogniser, Speakers
from eval.metrics.word_errors import Errors, modern_errors, official_wer
from eval.seed_tts.groups import Spoken
from eval.seed_tts.utterance_list import Line
from inference.text.normalization import Language
from tokenizer import AudioError, load_audio


@dataclass(frozen=True, kw_only=True)
class Score:
    """One utterance, judged."""

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
        """There was nothing to hear."""
        return not self.seconds


class Judge:
    """The two models, with the embeddings of prompts kept."""

    def __init__(self, recogniser: Recogniser, speakers: Speakers, language: Language) -> None:
        self.recogniser, self.speakers = recogniser, speakers
        self.language: Language = language
        self._prompts: dict[Path, np.ndarray] = {}

    def score(self, spoken: Spoken) -> Score:
        """Judge one file, or the lack of it."""
        line, wav = spoken.line, spoken.wav
        transcript, seconds, error = "", 0.0, spoken.error
        similarity = None if line.prompt_audio is None else 0.0
        digest = file_digest(wav) if error is None else None
        if error is None and digest is None:
            error = "there is no file"
        elif error is None:
            try:
                audio, rate = _read(wav)
                transcript, seconds = self.recogniser.transcribe(wav), len(audio) / rate
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

    def _similarity(self, line: Line, audio: np.ndarray, rate: int) -> float | None:
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
    """SHA-256 of a file; None where there is none."""
    return sha256(path) if path.is_file() else None


def as_record(score: Score) -> dict:
    """For a line of JSON."""
    return asdict(score)


def from_record(record: dict) -> Score:
    """The inverse of `as_record`."""
    counts = {name: Errors(**record[name]) for name in ("official", "modern")}
    return Score(**{**record, **counts})


def _read(path: Path) -> tuple[np.ndarray, int]:
    """Mono audio at the rate of the file."""
    try:
        rate = soundfile.info(path).samplerate
    except soundfile.SoundFileError:
        rate = 1  # load_audio says what is wrong
    return load_audio(path, rate).numpy(), rate
