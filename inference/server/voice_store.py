"""The voices of a server by name: one that comes with the project, and those of a folder."""

import re
import threading
from dataclasses import dataclass
from pathlib import Path

from inference.server.limits import PROMPT_SILENCE_SECONDS
from inference.synthesis.loading import DEFAULT_MODEL
from inference.synthesis.models import SpeechModels
from inference.voices.catvoice_file import SUFFIX, saved_voice, write_voice
from inference.voices.untrusted_audio import decode_upload
from inference.voices.voice import Voice

DEFAULT = "default"
"""The name of the voice that comes with the project."""
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""Names that mean one file in one folder on every operating system."""


class UnknownVoice(ValueError):
    """Says that there is no voice of this name."""


@dataclass(frozen=True, kw_only=True)
class VoiceEntry:
    """A line in the list of voices."""

    name: str
    created: int
    """Unix time in seconds."""


class VoiceFolder:
    """The voices of a server. Files that appear in the folder, or leave it, count at once.

    Args:
        models: Encode recordings; their tokenizer must be the one of the files.
        folder: The folder of .catvoice files; None offers the default voice alone.
        max_voices: Most voices that the folder may hold.

    Raises:
        ValueError: The folder cannot be created.
    """

    def __init__(self, models: SpeechModels, folder: Path | None = None, *, max_voices: int = 1000) -> None:
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(f"{folder}: cannot hold voices ({error.strerror}); name another") from None
        self.models, self.folder, self.max_voices = models, folder, max_voices
        transcript = (DEFAULT_MODEL / "prompt.txt").read_text(encoding="utf-8").strip()
        self._default = models.load_voice(DEFAULT_MODEL / "prompt.flac", transcript)
        self._encode_lock = threading.Lock()

    def entries(self) -> list[VoiceEntry]:
        """List all voices, the default one first."""
        files = sorted(self.folder.glob(f"*{SUFFIX}")) if self.folder else []
        saved = [
            VoiceEntry(name=file.stem, created=int(file.stat().st_mtime))
            for file in files
            if NAME.fullmatch(file.stem)
        ]
        return [VoiceEntry(name=DEFAULT, created=0), *saved]

    def voice(self, name: str) -> Voice:
        """Load the voice of a name.

        Args:
            name: The name, as the client sent it.

        Returns:
            The voice to speak with.

        Raises:
            UnknownVoice: There is none of this name.
            ValueError: Its file cannot be used.
        """
        if name == DEFAULT:
            return self._default
        path = self._path(name)
        if not path.is_file():
            raise _unknown(name)
        try:
            return self.models.load_voice(path)
        except ValueError as error:  # it names the path, which is none of the client's business
            raise ValueError(f"voice {str(error).replace(str(path), repr(name))}") from None

    def add(self, name: str, recording: bytes, text: str, consent: str, language: str = "") -> VoiceEntry:
        """Encode a recording and save it as a voice.

        One recording is encoded at a time: takes under way go first.

        Args:
            name: The name of the new voice.
            recording: The bytes of an audio file.
            text: The transcript of the recording.
            consent: Who allowed the use of the voice, and how.
            language: A tag of the language of the recording, or nothing.

        Returns:
            The new line in the list of voices.

        Raises:
            FileExistsError: The name is taken.
            AudioError: The recording cannot be used.
            PermissionError: This server has no folder of voices.
            ValueError: The name, the transcript or the consent cannot be used, or the folder is full.
        """
        if self.folder is None:
            raise PermissionError("this server keeps no voices: start it with --voices FOLDER")
        if name == DEFAULT:
            raise FileExistsError(f"voice {name!r} exists: choose another name")
        path = self._path(name, new=True)
        if not text.strip():
            raise ValueError("the transcript is empty: write what the recording says")
        if not consent.strip():
            raise ValueError("the consent is empty: write who allowed the use of this voice, and how")
        with self._encode_lock:
            if path.exists():
                raise FileExistsError(f"voice {name!r} exists: choose another name, or delete it first")
            if len(self.entries()) > self.max_voices:
                raise ValueError(f"the folder holds {self.max_voices} voices, the most it may: delete some")
            prompt = decode_upload(recording, self.models.max_prompt_seconds + PROMPT_SILENCE_SECONDS)
            voice = self.models.load_voice(prompt, text.strip())
            self.models.request("a", voice)  # refuses what leaves no room for a take
            voices = self.models.voices
            write_voice(path, saved_voice(voices, voice, language=language, consent=consent.strip()))
        return VoiceEntry(name=name, created=int(path.stat().st_mtime))

    def remove(self, name: str) -> None:
        """Delete a voice; takes under way still end with it.

        Args:
            name: The name, as the client sent it.

        Raises:
            UnknownVoice: There is none of this name.
            PermissionError: It is the default voice.
        """
        if name == DEFAULT:
            raise PermissionError(f"voice {name!r} comes with the server: it stays")
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            raise _unknown(name) from None

    def _path(self, name: str, *, new: bool = False) -> Path:
        """Return the path of a name that cannot mean a place outside the folder."""
        if not NAME.fullmatch(name):
            if new:
                raise ValueError(
                    f"voice name {name[:80]!r}: use up to 64 lower-case letters and digits, and later - and _"
                )
            raise _unknown(name)
        if self.folder is None:
            raise _unknown(name)
        return self.folder / f"{name}{SUFFIX}"


def _unknown(name: str) -> UnknownVoice:
    return UnknownVoice(f"there is no voice {name[:80]!r}: GET /v1/voices lists those that are")
