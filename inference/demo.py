"""What the parts of the page in the browser share: its words, its errors, its files."""

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

from inference.loading import DEFAULT_MODEL
from tokenizer.audio import save_audio

LABELS = gr.I18n(**json.loads(Path(__file__).with_name("demo_labels.json").read_text("utf-8")))
EXAMPLE = DEFAULT_MODEL / "prompt.flac"
"""The bundled voice, and beside it what it says."""


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
