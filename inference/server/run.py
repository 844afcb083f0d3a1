"""Open a socket, and serve on it until a signal ends the process."""

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
def exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM leave the blocks inside in order, with exit code 0."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def listen(host: str, port: int) -> socket.socket:
    """Open the socket to serve on.

    Args:
        host: The address of this machine to listen on.
        port: 1 to 65535, or 0 for any that is free.

    Returns:
        A listening socket.

    Raises:
        ValueError: It cannot be opened.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"port {port}: choose 1 to 65535, or 0 for any that is free")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ValueError(f"{host}:{port}: cannot be listened on ({error}); choose another") from None


def url(sock: socket.socket) -> str:
    """Return the address under which a browser on this machine reaches the socket."""
    host, port = sock.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def run(app: "FastAPI", sock: socket.socket, grace_seconds: int, *, access_log: bool = True) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Then no new request is accepted, and responses under way have `grace_seconds` to come to an end; what is
    left is cut. A second Ctrl-C cuts at once.

    Args:
        app: The application.
        sock: A listening socket.
        grace_seconds: Seconds that responses under way may still take.
        access_log: Whether every request is logged.
    """
    import uvicorn  # an extra

    async def quiet(scope: "Scope", receive: "Receive", send: "Send") -> None:
        with suppress(asyncio.CancelledError):  # a response that is cut here is no error to report
            await app(scope, receive, send)

    print(f"cat-tts: {url(sock)}/v1", flush=True)
    config = uvicorn.Config(
        quiet, timeout_graceful_shutdown=grace_seconds, server_header=False, access_log=access_log
    )
    with suppress(KeyboardInterrupt):  # uvicorn raises it once more when it is done
        uvicorn.Server(config).run(sockets=[sock])
