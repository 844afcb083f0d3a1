"""Folders as pieces small enough to be carried one by one, checked when they are put together.

    python -m training.pieces cut FOLDER PIECES
    python -m training.pieces join PIECES FOLDER

PIECES holds `piece-00.bin` and so on, and `pieces.json` with the SHA-256 of each. Nothing but the standard
library is needed, so that a bare machine can put together what everything else is installed from.
"""

import argparse
import hashlib
import io
import json
import lzma
import os
import sys
import tarfile
from pathlib import Path

INDEX = "pieces.json"
PIECE_BYTES = 15 * 2**20
COMPRESSED = (".jsonl", ".int8.safetensors")
"""Files that get smaller by it."""


def cut(folder: Path, pieces: Path, piece_bytes: int = PIECE_BYTES) -> list[Path]:
    """Write the files below `folder` as pieces of at most `piece_bytes`; return them, the index last.

    The same files give the same pieces. Older pieces in the folder go.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if not names:
        raise ValueError(f"{folder} holds no files: nothing to cut")
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name in names:
            content = (folder / name).read_bytes()
            if name.endswith(COMPRESSED):
                name, content = f"{name}.xz", lzma.compress(content)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    data = whole.getbuffer()
    pieces.mkdir(parents=True, exist_ok=True)
    for old in (*pieces.glob("piece-*.bin"), *pieces.glob(INDEX)):
        old.unlink()
    written, digests = [], {}
    for number, start in enumerate(range(0, len(data), piece_bytes)):
        path, part = pieces / f"piece-{number:02d}.bin", data[start : start + piece_bytes]
        _write(path, part)
        digests[path.name] = hashlib.sha256(part).hexdigest()
        written.append(path)
    _write(pieces / INDEX, json.dumps(digests, indent=2).encode())
    return [*written, pieces / INDEX]


def join(pieces: Path, folder: Path) -> Path:
    """Put the files back below `folder`; ValueError names the piece that is missing or damaged."""
    index = pieces / INDEX
    if not index.is_file():
        raise ValueError(f"{pieces} lacks {INDEX}: carry it along with the pieces")
    whole = io.BytesIO()
    for name, wanted in json.loads(index.read_text()).items():
        path = pieces / name
        if not path.is_file():
            raise ValueError(f"{path} is missing: carry it here, then try again")
        part = path.read_bytes()
        if hashlib.sha256(part).hexdigest() != wanted:
            raise ValueError(f"{path} is damaged, or of another cut: carry it here again")
        whole.write(part)
    whole.seek(0)
    with tarfile.open(fileobj=whole) as tar:
        for member in tar:
            file = tar.extractfile(member)
            name = Path(member.name)
            if file is None or name.is_absolute() or ".." in name.parts:
                raise ValueError(f"{pieces} holds {member.name}, which is no file of a folder: do not use it")
            content = file.read()
            if name.suffix == ".xz":
                name, content = name.with_suffix(""), lzma.decompress(content)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _write(folder / name, content)
    return folder


def _write(path: Path, content: bytes | memoryview) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def main(argv: list[str] | None = None) -> None:
    """Command line; one line on stderr and exit code 2 on a mistake."""
    parser = argparse.ArgumentParser(description="Cut a folder into pieces, or put it together again.")
    parser.add_argument("action", choices=("cut", "join"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args(argv)
    try:
        if options.action == "cut":
            for path in cut(options.source, options.target):
                print(f"{path.stat().st_size / 2**20:6.1f} MiB  {path}")
        else:
            print(join(options.source, options.target))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
