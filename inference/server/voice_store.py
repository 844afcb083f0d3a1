"""Voices by name: one that comes with the project, and those of a folder."""

import re
import threading
from dataclasses import dataclass
from pathlib import Path

from inference.synthesis.loading import DEFAULT_MODEL
from inference.synthesis.synthesizer import Synthesizer
from inference.voices.catvoice_file import SUFFIX, saved_voice, write_voice
from inference.voices.untrusted_audio import decode_upload
from inference.voices.voice import Voice

DEFAULT = "default"
"""The name of the voice that comes with the project."""
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""Names that mean one file in one folder on every system."""
SILENCE_SECONDS = 10.0
"""That an upload may have around a prompt of full length; it is trimmed."""


class UnknownVoice(ValueError):
    """No such voice."""


@dataclass(frozen=True, kw_only=True)
class VoiceEntry:
    """What is told about a voice."""

    name: str
    created: int
    """Unix time."""


class VoiceFolder:
    """The voices of a server. Files that appear in the folder, or leave it, count at once."""

    def __init__(self, synthesizer: Synthesizer, folder: Path | None = None, *, most: int = 1000) -> None:
        """Without a folder there is the default voice alone."""
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(f"{folder}: cannot hold voices ({error.strerror}); name another") from None
        self.synthesizer, self.folder, self.most = synthesizer, folder, most
        words = (DEFAULT_MODEL / "prompt.txt").read_text(encoding="utf-8").strip()
        self._default = synthesizer.voice(DEFAULT_MODEL / "prompt.flac", words)
        synthesizer.voices.timbre(self._default)  # learnt now, while nobody waits
        self._encoding = threading.Lock()

    def entries(self) -> list[VoiceEntry]:
        """All voices, the default one first."""
        files = sorted(self.folder.glob(f"*{SUFFIX}")) if self.folder else []
        found = [
            VoiceEntry(name=file.stem, created=int(file.stat().st_mtime))
            for file in files
            if NAME.fullmatch(file.stem)
        ]
        return [VoiceEntry(name=DEFAULT, created=0), *found]

    def voice(self, name: str) -> Voice:
        """The voice of this name; UnknownVoice where there is none."""
        if name == DEFAULT:
            return self._default
        path = self._path(name)
        if not path.is_file():
            raise _unknown(name)
        try:
            return self.synthesizer.voice(path)
        except ValueError as error:  # it names the path, which is none of the client's business
            raise ValueError(f"voice {str(error).replace(str(path), repr(name))}") from None

    def add(self, name: str, recording: bytes, text: str, consent: str, language: str = "") -> VoiceEntry:
        """Encode a recording that says `text` and keep it; `consent` tells who allowed its use, and how.

        FileExistsError where the name is taken, AudioError for the recording, PermissionError without a
        folder. One recording is encoded at a time: takes under way go first.
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
        with self._encoding:
            if path.exists():
                raise FileExistsError(f"voice {name!r} exists: choose another name, or delete it first")
            if len(self.entries()) > self.most:
                raise ValueError(f"the folder holds {self.most} voices, the most it may: delete some")
            prompt = decode_upload(recording, self.synthesizer.max_prompt_seconds + SILENCE_SECONDS)
            voice = self.synthesizer.voice(prompt, text.strip())
            self.synthesizer.request("a", voice)  # refuses what leaves no room for a take
            voices = self.synthesizer.voices
            write_voice(path, saved_voice(voices, voice, language=language, consent=consent.strip()))
        return VoiceEntry(name=name, created=int(path.stat().st_mtime))

    def remove(self, name: str) -> None:
        """Delete the file; UnknownVoice where there is none. Takes under way go on."""
        if name == DEFAULT:
            raise PermissionError(f"voice {name!r} comes with the server: it stays")
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            raise _unknown(name) from None

    def _path(self, name: str, *, new: bool = False) -> Path:
        """Of a name that cannot mean a place elsewhere."""
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
