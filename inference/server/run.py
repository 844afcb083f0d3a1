"""A socket to listen on, and serving on it until the process is told to stop."""

import asyncio
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Receive, Scope, Send


API_KEY = "CAT_TTS_API_KEY"
"""Environment variable that holds the key clients must send."""


@contextmanager
def orderly_end() -> Iterator[None]:
    """SIGTERM ends the blocks inside in order, with exit code 0."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def listen(host: str, port: int) -> socket.socket:
    """The socket to serve on; ValueError where it cannot be had."""
    if not 0 <= port < 2**16:
        raise ValueError(f"port {port}: choose 1 to 65535, or 0 for any that is free")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ValueError(f"{host}:{port}: cannot be listened on ({error}); choose another") from None


def url(door: socket.socket) -> str:
    """What a browser on this machine opens."""
    host, port = door.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def run(app: "FastAPI", door: socket.socket, grace_seconds: int, *, access_log: bool = True) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Then nobody is let in any more, and answers under way have `grace_seconds` to come to an end; what is left
    is cut. A second Ctrl-C cuts at once.
    """
    import uvicorn  # an extra

    async def quiet(scope: "Scope", receive: "Receive", send: "Send") -> None:
        with suppress(asyncio.CancelledError):  # an answer that is cut here is no fault, and no news
            await app(scope, receive, send)

    print(f"cat-tts: {url(door)}/v1", flush=True)
    config = uvicorn.Config(
        quiet, timeout_graceful_shutdown=grace_seconds, server_header=False, access_log=access_log
    )
    with suppress(KeyboardInterrupt):  # uvicorn raises it once more when it is done
        uvicorn.Server(config).run(sockets=[door])
