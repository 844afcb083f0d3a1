"""Files written whole or not at all, and read only if they are of a size that can be."""

import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PathLike = str | os.PathLike[str]


def check_target(path: PathLike, suffixes: Collection[str], error: type[ValueError], what: str) -> None:
    """Raise `error` where no such file could be written, before any work is spent on its content."""
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
    """A neighbour of `path`, which takes its name when the block ends well and is gone when it does not."""
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


def read_bytes(path: PathLike, most: int, error: type[ValueError]) -> bytes:
    """All of a file of at most `most` bytes; nothing is read of a larger one."""
    try:
        if not Path(path).is_file():
            kind = "is no file; name one" if Path(path).exists() else "no such file; check the spelling"
            raise error(f"{path}: {kind}")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise error(f"{path}: {size} bytes; such a file has at most {most}, so it is another kind")
            return file.read(most)
    except OSError as fault:
        raise error(f"{path}: cannot be read ({fault.strerror}); check its permissions") from None
