"""Servers of this machine that answer a single request with given bytes, however odd."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def answering() -> Iterator[Callable[..., str]]:
    """Yield a function that starts a server, which sends pieces and closes, and returns its address.

    The server waits for `every` seconds after each piece, and with `waits` it is silent before it closes.
    """
    over, threads = threading.Event(), list[threading.Thread]()

    def serve(*pieces: bytes, every: float = 0.0, waits: bool = False) -> str:
        listening_socket = socket.create_server(("127.0.0.1", 0))
        listening_socket.settimeout(20)

        def answer() -> None:
            try:
                with listening_socket, listening_socket.accept()[0] as connection:
                    connection.recv(10_000)
                    for piece in pieces:
                        connection.sendall(piece)
                        over.wait(every)
                    over.wait(30 if waits else 0)
            except OSError:
                pass  # the reader has left, or never came

        threads.append(threading.Thread(target=answer))
        threads[-1].start()
        return f"http://127.0.0.1:{listening_socket.getsockname()[1]}/a.wav"

    try:
        yield serve
    finally:
        over.set()
        for thread in threads:
            thread.join()
