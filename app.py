"""The page in the browser: `python app.py`, then open the address that it prints."""

import logging
import sys
from dataclasses import dataclass
from typing import Any

import gradio as gr
import tyro
from gradio.themes import Default

from inference import Synthesizer
from inference.demo import LABELS
from inference.demo_clone import CloneTab
from inference.demo_codec import CodecTab
from inference.service import Service
from inference.speed import measure

SLOTS = 4
FORGET_EVERY, FORGET_AFTER = 300, 3600
"""Seconds: how often the files of the page are looked through, and how old they may get."""
CSS = """
#status, #rate, #count, #advice { font-variant-numeric: tabular-nums; padding: 0 4px; }
#takes .wrap { flex-direction: column; }
#seeds { align-items: end; }
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
}
"""What Gradio takes in `launch` and `mount_gradio_app`, and not with the page."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Clone voices in the browser."""

    model: str | None = None
    """Folder or hub id, such as OpenMOSS-Team/MOSS-TTS-Local-Transformer; the embedded model by default."""
    tokenizer: str | None = None
    """Folder or hub id of the audio tokenizer, where the model does not bring its own."""
    device: str | None = None
    """cpu or cuda; cuda where there is one by default."""
    host: str = "127.0.0.1"
    """0.0.0.0 lets other machines in; a browser gives them its microphone over HTTPS alone."""
    port: int = 7860
    share: bool = False
    """Open a public address through Gradio's servers."""
    slots: int = SLOTS
    """Takes that are made at once."""


def build_demo(synthesizer: Synthesizer, service: Service | None = None) -> gr.Blocks:
    """The page, to be launched or mounted with `LOOK`. `service` makes the takes, by default one of its own.

    Nothing is shared between visitors but these two.
    """
    service = service or Service(synthesizer, slots=SLOTS)
    with gr.Blocks(
        title="CAT-TTS", analytics_enabled=False, delete_cache=(FORGET_EVERY, FORGET_AFTER)
    ) as demo:
        gr.Markdown(LABELS("welcome"))
        with gr.Tab(LABELS("clone_tab")):
            CloneTab(service, measure(synthesizer))
        with gr.Tab(LABELS("codec_tab")):
            CodecTab(synthesizer.tokenizer)
        gr.Markdown(LABELS("privacy"))
    return demo.queue(default_concurrency_limit=2 * service.engine.slots, max_size=64)


def main(argv: list[str] | None = None) -> None:
    """Serve the page; a mistake of the user ends with one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options = tyro.cli(Options, prog="app.py", args=argv)
    try:
        synthesizer = Synthesizer.from_pretrained(options.model, options.tokenizer, options.device)
        demo = build_demo(synthesizer, Service(synthesizer, slots=options.slots))
        demo.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            ssr_mode=False,
            max_file_size="20mb",
            **LOOK,
        )
    except (ValueError, OSError) as error:
        print("app.py: " + " ".join(str(error).splitlines()), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
