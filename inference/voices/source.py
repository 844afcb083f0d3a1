"""What a voice is made from: a recording or a voice file, read once, wherever it comes from."""

import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from inference.voices.catvoice_file import parse_voice, read_voice
from inference.voices.catvoice_format import MAGIC, SUFFIX, SavedVoice
from inference.voices.prompt_audio import PromptAudio, PromptRecording, read_recording
from inference.voices.untrusted_audio import decode_upload
from inference.voices.voice import Voice
from tokenizer.io.audio import AudioError

VoiceSource = PromptAudio | bytes | BinaryIO | PromptRecording | SavedVoice
"""A file or an address (http or https); the bytes of a file, or the open file; or mono samples [s] as floats
in [-1, 1], with their rate in Hz."""

MAX_BYTES, MAX_SECONDS = 2**26, 600.0
"""Limits of what is downloaded, or given as bytes."""
TIMEOUT_SECONDS, DOWNLOAD_SECONDS = 30.0, 120.0
"""How long a server may be silent, and how long a download may take."""


def read_source(source: VoiceSource) -> PromptRecording | SavedVoice:
    """Read a recording or a voice file, without a model.

    Args:
        source: Where it is. What was read already is returned as it is.

    Returns:
        The recording, or the contents of the `.catvoice` file.

    Raises:
        AudioError: there is no readable audio.
        VoiceFileError: the voice file is damaged.
    """
    if isinstance(source, (PromptRecording, SavedVoice)):
        return source
    if isinstance(source, (str, Path)):
        if str(source).lower().startswith(("http://", "https://")):
            return _from_bytes(_download(str(source)), str(source))
        is_voice = Path(source).suffix.lower() == SUFFIX
        return read_voice(source) if is_voice else read_recording(source)
    if isinstance(source, tuple):
        return read_recording(source)
    if isinstance(source, (bytes, bytearray)):
        return _from_bytes(bytes(source), "prompt")
    if hasattr(source, "read"):
        try:
            data = source.read(MAX_BYTES + 1)
        except (OSError, TypeError, ValueError) as error:  # such as a closed file
            raise AudioError(
                f"prompt: cannot be read ({_shown(error)}); open the file with mode 'rb'"
            ) from None
        if not isinstance(data, bytes):
            raise AudioError("prompt: the file is open as text; open it with mode 'rb'")
        return _from_bytes(data, str(getattr(source, "name", "prompt")))
    raise AudioError(
        f"prompt: {_shown(repr(source))} is no voice; give a path, bytes, an open file or (samples, rate)"
    )


def transcript(source: PromptRecording | SavedVoice | Voice, prompt_text: str) -> str:
    """Return the transcript of a prompt, which voices and voice files hold themselves.

    Args:
        source: The recording, the voice file or the voice.
        prompt_text: The transcript that the user gave, or nothing.

    Returns:
        The transcript of the voice, or `prompt_text` for a recording.

    Raises:
        ValueError: `prompt_text` contradicts the voice.
    """
    if isinstance(source, PromptRecording):
        return prompt_text
    if prompt_text not in ("", source.text):
        raise ValueError(f"this voice says {source.text!r}, not {prompt_text!r}: leave it out")
    return source.text


def _from_bytes(data: bytes, name: str) -> PromptRecording | SavedVoice:
    if len(data) > MAX_BYTES:
        raise AudioError(
            f"{name}: more than {MAX_BYTES // 2**20} MiB; give the few seconds that hold the voice"
        )
    if data.startswith(MAGIC):
        return parse_voice(data, name)
    try:
        samples, rate = decode_upload(data, MAX_SECONDS)
    except AudioError as error:
        raise AudioError(f"{name}: {error}") from None
    return PromptRecording(samples=samples, sample_rate=rate, name=name)


def _download(address: str) -> bytes:
    data, deadline = b"", time.monotonic() + DOWNLOAD_SECONDS
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as answer:
            length = answer.length or 0
            while len(data) <= MAX_BYTES and (block := answer.read1(2**20)):
                data += block
                if time.monotonic() > deadline:
                    raise TimeoutError(f"more than {DOWNLOAD_SECONDS:g} s")
            if len(data) < min(length, MAX_BYTES):
                raise OSError("the answer is cut off")
            return data
    except (OSError, ValueError, HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = error.reason if type(error) is urllib.error.URLError else error
        raise AudioError(f"{address}: cannot be downloaded ({_shown(reason)}); check the address") from None


def _shown(value: object) -> str:
    """Return what something says, for the one line of an error: a server may say anything."""
    return " ".join(str(value).split())[:80]
