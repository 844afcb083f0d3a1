"""`cat-tts serve`: serve the API until a signal ends it."""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from inference.server.limits import Limits
from inference.server.run import API_KEY, exit_on_sigterm, listen, run
from inference.synthesis.service import Service
from inference.synthesizer import Synthesizer

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Addresses that other machines cannot reach."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """How many takes are synthesized at a time, and how long they may be."""

    slots: int = 8
    """Takes that are synthesized at once."""
    waiting: int = 32
    """Requests that may wait for a slot; more are refused."""
    max_seconds: float = 120.0
    """Longest take, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve speech over HTTP to OpenAI's clients."""

    host: str = "127.0.0.1"
    """0.0.0.0 lets other machines in: give an API key then."""
    port: int = 8000
    """0 chooses any that is free."""
    model: str | None = None
    """Folder or hub id, such as OpenMOSS-Team/MOSS-TTS-Local-Transformer; the embedded model by default."""
    tokenizer: str | None = None
    """Folder or hub id of the audio tokenizer, where the model does not include one."""
    device: str | None = None
    """cpu or cuda; cuda where there is one by default."""
    voices: Path | None = None
    """Folder of .catvoice files, to which clients can add voices; without it they can add none."""
    api_key: str | None = None
    """What clients must send as a Bearer token; better given as CAT_TTS_API_KEY in the environment."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may use the server, such as https://example.com; * for all."""
    grace_seconds: int = 10
    """Seconds that takes under way may still last after Ctrl-C or SIGTERM."""
    capacity: tyro.conf.OmitArgPrefixes[Capacity] = field(default_factory=Capacity)
    limits: tyro.conf.OmitArgPrefixes[Limits] = field(default_factory=Limits)


def serve(options: Serve) -> None:
    """Run the command.

    Args:
        options: The options of the command line.

    Raises:
        ValueError: A mistake that the user can cure; found before a model is loaded, where possible.
    """
    try:
        from inference.server.app import create_server
        from inference.server.voice_store import VoiceFolder
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is missing: pip install 'cat-tts[serve]'") from None
    if options.grace_seconds < 0:
        raise ValueError(f"grace of {options.grace_seconds} s: give 0 or more seconds")
    api_key = options.api_key or os.environ.get(API_KEY) or None
    if options.host not in LOOPBACK and api_key is None:
        logger.warning("cat-tts: %s lets other machines in, and there is no API key", options.host)
    with exit_on_sigterm(), listen(options.host, options.port) as sock:
        synthesizer = Synthesizer.from_pretrained(options.model, options.tokenizer, options.device)
        voices = VoiceFolder(synthesizer, options.voices, max_voices=options.limits.max_voices)
        capacity = options.capacity
        with Service(
            synthesizer, slots=capacity.slots, waiting=capacity.waiting, max_seconds=capacity.max_seconds
        ) as service:
            app = create_server(
                service, voices, limits=options.limits, api_key=api_key, origins=options.cors_origins
            )
            run(app, sock, options.grace_seconds)
