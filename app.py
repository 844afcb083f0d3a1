"""Serve the page in the browser, and the API beside it: `python app.py`, then open the address it prints."""

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import tyro
from fastapi import FastAPI
from gradio.themes import Default

from inference import Synthesizer
from inference.cli.renamed_options import current_options
from inference.demo.clone_tab import CloneTab
from inference.demo.codec_tab import CodecTab
from inference.demo.common import LABELS
from inference.demo.recognizer import Recognizer, find_recognizer
from inference.server.app import create_server
from inference.server.run import API_KEY, exit_on_sigterm, listen, run, url
from inference.server.voice_store import VoiceFolder
from inference.synthesis.adapted_services import VoiceServices
from inference.synthesis.service import Service
from inference.synthesis.speed_estimate import measure

SLOTS = 4
"""Takes that are synthesized at once, by default."""
GRACE_SECONDS = 2
"""Seconds that responses may still last when the server ends: an open page never disconnects by itself."""
CLEANUP_INTERVAL, MAX_FILE_AGE = 300, 3600
"""Seconds between two deletions of old files of the page, and the age from which they are deleted."""
CSS = """
#status, #rate, #count, #advice { font-variant-numeric: tabular-nums; padding: 0 4px; }
#takes .wrap { flex-direction: column; }
#seeds, #sources { align-items: end; }
.picture img { width: 100%; height: 130px; object-fit: fill; }
"""
APPEARANCE: dict[str, Any] = {
    "theme": Default(
        primary_hue="teal", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    ),
    "css": CSS,
    "i18n": LABELS,
    "footer_links": ["settings"],
    "run_history": False,
    "ssr_mode": False,
    "max_file_size": "20mb",
}
"""Settings that Gradio takes in `launch` and `mount_gradio_app`, and not with the page."""
RENAMED = {"--recogniser": "--recognizer"}
"""New options by old ones, which still work in this version."""


@dataclass(frozen=True, kw_only=True)
class AppOptions:
    """Clone voices in the browser; programs find the API of `cat-tts serve` under /v1."""

    model: str | None = None
    """Folder or hub id, such as OpenMOSS-Team/MOSS-TTS-Local-Transformer; the embedded model by default."""
    tokenizer: str | None = None
    """Folder or hub id of the audio tokenizer, where the model does not include one."""
    device: str | None = None
    """cpu or cuda; cuda where there is one by default."""
    host: str = "127.0.0.1"
    """0.0.0.0 lets other machines in; their browsers allow the microphone over HTTPS only."""
    port: int = 7860
    slots: int = SLOTS
    """Takes that are synthesized at once, for the page and the API."""
    voices: Path | None = None
    """Folder of .catvoice files, to which clients of the API can add voices."""
    recognizer: Path | None = None
    """Folder of a Whisper model for faster-whisper, to transcribe recordings; by default one that
    faster-whisper downloaded earlier, if there is any."""


def build_demo(
    synthesizer: Synthesizer, service: Service | None = None, recognizer: Recognizer | None = None
) -> gr.Blocks:
    """Build the page, to be launched or mounted with `APPEARANCE`.

    Users share nothing but the service and the recognizer.

    Args:
        synthesizer: The model.
        service: Synthesizes the takes; None starts a new one with `SLOTS` slots.
        recognizer: Transcribes recordings; None leaves that to the user.

    Returns:
        The page, with a queue.
    """
    service = service or Service(synthesizer, slots=SLOTS)
    with gr.Blocks(
        title="CAT-TTS", analytics_enabled=False, delete_cache=(CLEANUP_INTERVAL, MAX_FILE_AGE)
    ) as demo:
        language = gr.Textbox(LABELS("language"), visible="hidden")
        gr.Markdown(LABELS("welcome"))
        with gr.Tab(LABELS("clone_tab")):
            clone = CloneTab(VoiceServices(service), measure(synthesizer), recognizer, language)
        with gr.Tab(LABELS("codec_tab")):
            CodecTab(synthesizer.tokenizer, language)
        gr.Markdown(LABELS("privacy"))
        demo.load(clone.rate_of, [language, clone.depth], clone.rate, api_visibility="private")
    return demo.queue(default_concurrency_limit=2 * service.engine.slots, max_size=64)


def build_app(
    synthesizer: Synthesizer, service: Service, voices: VoiceFolder, recognizer: Recognizer | None
) -> FastAPI:
    """Build the application with the API under /v1 and the page at /, which share one engine.

    The API alone needs the key CAT_TTS_API_KEY, if it is set in the environment.

    Args:
        synthesizer: The model.
        service: Synthesizes the takes of the page and of the API.
        voices: The voices of the API.
        recognizer: Transcribes recordings on the page, if there is one.

    Returns:
        An ASGI application.
    """
    server = create_server(service, voices, api_key=os.environ.get(API_KEY) or None)
    return gr.mount_gradio_app(server, build_demo(synthesizer, service, recognizer), path="/", **APPEARANCE)


def main(argv: list[str] | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C; a mistake of the user ends with one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options = tyro.cli(AppOptions, prog="app.py", args=current_options(argv, RENAMED))
    try:
        recognizer = find_recognizer(options.recognizer)
        with exit_on_sigterm(), listen(options.host, options.port) as sock:
            synthesizer = Synthesizer.from_pretrained(options.model, options.tokenizer, options.device)
            voices = VoiceFolder(synthesizer, options.voices)
            with Service(synthesizer, slots=options.slots) as service:
                app = build_app(synthesizer, service, voices, recognizer)
                print(f"The page: {url(sock)}", flush=True)
                run(app, sock, GRACE_SECONDS, access_log=False)
    except (ValueError, OSError) as error:
        print("app.py: " + " ".join(str(error).splitlines()), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
