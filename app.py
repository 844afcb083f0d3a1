"""The page in the browser, and the API beside it: `python app.py`, then open the address that it prints."""

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
from inference.demo.clone_tab import CloneTab
from inference.demo.codec_tab import CodecTab
from inference.demo.common import LABELS
from inference.demo.recognizer import Recogniser, find_recogniser
from inference.server.app import create_server
from inference.server.run import API_KEY, listen, orderly_end, run, url
from inference.server.voice_store import VoiceFolder
from inference.synthesis.adapted_services import VoiceServices
from inference.synthesis.service import Service
from inference.synthesis.speed_estimate import measure

SLOTS = 4
GRACE_SECONDS = 2
"""A page that is open never hangs up by itself."""
FORGET_EVERY, FORGET_AFTER = 300, 3600
"""Seconds: how often the files of the page are looked through, and how old they may get."""
CSS = """
#status, #rate, #count, #advice { font-variant-numeric: tabular-nums; padding: 0 4px; }
#takes .wrap { flex-direction: column; }
#seeds, #sources { align-items: end; }
.picture img { width: 100%; height: 130px; object-fit: fill; }
"""
LOOK: dict[str, Any] = {
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
"""What Gradio takes in `launch` and `mount_gradio_app`, and not with the page."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Clone voices in the browser; programs find the API of `cat-tts serve` under /v1."""

    model: str | None = None
    """Folder or hub id, such as OpenMOSS-Team/MOSS-TTS-Local-Transformer; the embedded model by default."""
    tokenizer: str | None = None
    """Folder or hub id of the audio tokenizer, where the model does not bring its own."""
    device: str | None = None
    """cpu or cuda; cuda where there is one by default."""
    host: str = "127.0.0.1"
    """0.0.0.0 lets other machines in; a browser gives them its microphone over HTTPS alone."""
    port: int = 7860
    slots: int = SLOTS
    """Takes that are made at once, for the page and the API together."""
    voices: Path | None = None
    """Folder of .catvoice files, where the voices that clients of the API bring are kept."""
    recogniser: Path | None = None
    """Folder of a Whisper model for faster-whisper, to write down what a clip says; by default one that
    faster-whisper fetched earlier, if there is any."""


def build_demo(
    synthesizer: Synthesizer, service: Service | None = None, recogniser: Recogniser | None = None
) -> gr.Blocks:
    """The page, to be launched or mounted with `LOOK`. `service` makes the takes, by default one of its own;
    with a `recogniser` the words of a clip are written down.

    Nothing is shared between visitors but these two.
    """
    service = service or Service(synthesizer, slots=SLOTS)
    with gr.Blocks(
        title="CAT-TTS", analytics_enabled=False, delete_cache=(FORGET_EVERY, FORGET_AFTER)
    ) as demo:
        language = gr.Textbox(LABELS("language"), visible="hidden")
        gr.Markdown(LABELS("welcome"))
        with gr.Tab(LABELS("clone_tab")):
            clone = CloneTab(VoiceServices(service), measure(synthesizer), recogniser, language)
        with gr.Tab(LABELS("codec_tab")):
            CodecTab(synthesizer.tokenizer, language)
        gr.Markdown(LABELS("privacy"))
        demo.load(clone.rate_of, [language, clone.depth], clone.rate, api_visibility="private")
    return demo.queue(default_concurrency_limit=2 * service.engine.slots, max_size=64)


def build_app(
    synthesizer: Synthesizer, service: Service, voices: VoiceFolder, recogniser: Recogniser | None
) -> FastAPI:
    """The API under /v1 and the page at /, of one engine. CAT_TTS_API_KEY is asked of the API alone."""
    server = create_server(service, voices, api_key=os.environ.get(API_KEY) or None)
    return gr.mount_gradio_app(server, build_demo(synthesizer, service, recogniser), path="/", **LOOK)


def main(argv: list[str] | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C; a mistake of the user ends with one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options = tyro.cli(Options, prog="app.py", args=argv)
    try:
        recogniser = find_recogniser(options.recogniser)
        with orderly_end(), listen(options.host, options.port) as door:
            synthesizer = Synthesizer.from_pretrained(options.model, options.tokenizer, options.device)
            voices = VoiceFolder(synthesizer, options.voices)
            with Service(synthesizer, slots=options.slots) as service:
                app = build_app(synthesizer, service, voices, recogniser)
                print(f"The page: {url(door)}", flush=True)
                run(app, door, GRACE_SECONDS, access_log=False)
    except (ValueError, OSError) as error:
        print("app.py: " + " ".join(str(error).splitlines()), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
