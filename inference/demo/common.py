"""What the parts of the page in the browser share: its words, its errors, its files, its examples."""

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

WORDS: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("labels.json").read_text("utf-8"))
LABELS = gr.I18n(**WORDS)
"""What stands on the page from the start; the browser chooses the language, and `said` is told which."""
EXAMPLE = DEFAULT_MODEL / "prompt.flac"
"""The bundled voice, and beside it what it says."""
_VOICES = DEFAULT_MODEL / "voices"
EXAMPLES = {
    "\u2640 LibriSpeech 121": EXAMPLE,
    "\u2640 LibriSpeech 4507": _VOICES / "woman-librispeech-4507.flac",
    "\u2642 LibriSpeech 4077": _VOICES / "man-librispeech-4077.flac",
    "\u2640 speechocean762 2168 (zh \u2192 en)": _VOICES / "woman-speechocean762-2168.flac",
    "\u2642 speechocean762 2917 (zh \u2192 en)": _VOICES / "man-speechocean762-2917.flac",
}
"""Their sources and licence: voices/README.md beside them."""


def said(language: str, key: str, **values: object) -> str:
    """A line in the language of the page, which a browser may claim to be any."""
    return WORDS.get(language, WORDS["en"])[key].format(**values)


@contextmanager
def told(path: str = "") -> Iterator[None]:
    """What the visitor can cure is told in one line, which Gradio would render as HTML.

    `path` is named without its folder, which on a server is nobody's business.
    """
    try:
        yield
    except ValueError as error:
        line = " ".join(str(error).splitlines())
        line = line.replace(path, Path(path).name) if path else line
        raise gr.Error(html.escape(line), print_exception=False) from None


def new_folder() -> Path:
    """In Gradio's cache: what the page shows from there is deleted with the rest of it, and not copied."""
    return Path(get_upload_folder()) / secrets.token_hex(16)


def new_wav(audio: Float[np.ndarray, " s"], sample_rate: int, name: str) -> str:
    """A wav file for a player. Arrays would not do: Gradio brings each to full scale."""
    folder = new_folder()
    folder.mkdir(parents=True)
    path = folder / f"{name}.wav"
    save_audio(path, torch.from_numpy(audio), sample_rate)
    return str(path)
