"""Shared by the parts of the page in the browser: translations, errors, files and example voices."""

import hashlib
import html
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
import numpy as np
import torch
from gradio.utils import get_upload_folder
from jaxtyping import Float

from inference.synthesis.loading import DEFAULT_MODEL
from tokenizer.io.audio import save_audio

TRANSLATIONS: dict[str, dict[str, str]] = json.loads(
    Path(__file__).with_name("labels.json").read_text("utf-8")
)
LABELS = gr.I18n(**TRANSLATIONS)
"""Texts that are on the page from the start; the browser chooses the language, which `translate` is given."""
EXAMPLE = DEFAULT_MODEL / "prompt.flac"
"""The recording of the bundled voice; its transcript is beside it."""
_VOICES = DEFAULT_MODEL / "voices"
EXAMPLES = {
    "\u2640 LibriSpeech 121": EXAMPLE,
    "\u2640 LibriSpeech 4507": _VOICES / "woman-librispeech-4507.flac",
    "\u2642 LibriSpeech 4077": _VOICES / "man-librispeech-4077.flac",
    "\u2640 speechocean762 2168 (zh \u2192 en)": _VOICES / "woman-speechocean762-2168.flac",
    "\u2642 speechocean762 2917 (zh \u2192 en)": _VOICES / "man-speechocean762-2917.flac",
}
"""Recordings by the names that the page shows; voices/README.md beside them has sources and licence."""


def translate(language: str, key: str, **values: object) -> str:
    """Return a line in the language of the page.

    Args:
        language: The language as the browser sends it; an unknown one becomes English.
        key: The key in labels.json.
        **values: Values of the placeholders in the line.

    Returns:
        The line.
    """
    return TRANSLATIONS.get(language, TRANSLATIONS["en"])[key].format(**values)


@contextmanager
def user_errors(path: str = "") -> Iterator[None]:
    """Show a ValueError of the block, a mistake that the user can cure, as one line on the page.

    The line is escaped, since Gradio renders it as HTML.

    Args:
        path: A path that the message may name; it is shown without its folder, which is private on a server.

    Raises:
        gr.Error: The line, which Gradio shows.
    """
    try:
        yield
    except ValueError as error:
        line = " ".join(str(error).splitlines())
        line = line.replace(path, Path(path).name) if path else line
        raise gr.Error(html.escape(line), print_exception=False) from None


def new_folder() -> Path:
    """Return a new path in Gradio's cache, from which files are shown without a copy, and deleted with it."""
    return Path(get_upload_folder()) / secrets.token_hex(16)


def new_wav(audio: Float[np.ndarray, " s"], sample_rate: int, name: str) -> str:
    """Write a wav file for a player, since Gradio would scale an array to full level.

    Args:
        audio: Samples [s] between -1 and 1.
        sample_rate: In Hz.
        name: The name of the file, without suffix.

    Returns:
        The path of the file.
    """
    folder = new_folder()
    folder.mkdir(parents=True)
    path = folder / f"{name}.wav"
    save_audio(path, torch.from_numpy(audio), sample_rate)
    return str(path)


def file_checksum(path: str) -> str:
    """Return the SHA-256 of the bytes of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
