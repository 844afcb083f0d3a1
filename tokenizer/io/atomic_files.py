"""Files that are written whole or not at all, and read only up to a maximal size."""

import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PathLike = str | os.PathLike[str]


def check_target(path: PathLike, suffixes: Collection[str], error: type[ValueError], what: str) -> None:
    """Check that a file can be written, before any work is spent on its content.

    Args:
        path: The file.
        suffixes: Allowed suffixes, in lower case, with the dot.
        error: The exception to raise.
        what: The kind of file, for the message.

    Raises:
        error: If the path is a folder or has another suffix, or its folder is missing or not writable.
    """
    path = Path(path)
    if path.is_dir():
        raise error(f"{path}: is a folder; name a file in it")
    if path.suffix.lower() not in suffixes:
        raise error(f"{path}: unknown kind of {what}; end the name with one of {', '.join(suffixes)}")
    if not path.parent.is_dir():
        raise error(f"{path}: the folder {path.parent} does not exist; create it or choose another")
    if not os.access(path.parent, os.W_OK):
        raise error(f"{path}: the folder {path.parent} is not writable; choose another")


@contextmanager
def new_file(path: PathLike, error: type[ValueError]) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`, which is renamed to `path` if the block succeeds, else deleted.

    Args:
        path: The file to write or replace.
        error: The exception to raise.

    Yields:
        The temporary file, open for writing and reading.

    Raises:
        error: If the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        with open(partial, "x+b") as file:
            yield file
        os.replace(partial, path)
    except OSError as fault:
        raise error(f"{path}: cannot be written ({fault.strerror}); choose another place") from None
    finally:
        partial.unlink(missing_ok=True)


def read_bytes(path: PathLike, max_bytes: int, error: type[ValueError]) -> bytes:
    """Read a file of at most `max_bytes` bytes; nothing is read of a larger one.

    Args:
        path: The file.
        max_bytes: The largest size that such a file can have.
        error: The exception to raise.

    Returns:
        The whole content.

    Raises:
        error: If there is no such file, it is too large, or it cannot be read.
    """
    try:
        if not Path(path).is_file():
            kind = "is no file; name one" if Path(path).exists() else "no such file; check the spelling"
            raise error(f"{path}: {kind}")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                limit = f"such a file has at most {max_bytes}, so it is another kind"
                raise error(f"{path}: {size} bytes; {limit}")
            return file.read(max_bytes)
    except OSError as fault:
        raise error(f"{path}: cannot be read ({fault.strerror}); check its permissions") from None
