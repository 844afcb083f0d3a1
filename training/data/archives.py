"""Read the bytes of clips, from files and from tar archives that are never unpacked."""

import tarfile
import zlib
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO

import soundfile

from tokenizer.io.audio import AudioError
from training.data.manifest import Clip

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")
TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar")
DAMAGED = (tarfile.TarError, EOFError, OSError, zlib.error)
"""Exceptions raised on reading a file that is a truncated tar archive, or not a tar archive."""


class MissingAudio(AudioError):
    """Raised where there is no audio to read, as opposed to audio that cannot be read."""


def archives_in(folder: Path) -> list[Path]:
    """Return the tar archives of a folder, sorted by name."""
    return sorted(path for path in folder.glob("*") if path.name.endswith(TAR_SUFFIXES))


def members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the files of an archive, front to back.

    Args:
        archive: a tar archive, compressed or not.

    Yields:
        Name and content of each file; the content can be read until the next file is requested.

    Raises:
        tarfile.TarError: or another of DAMAGED, where the archive ends early.
    """
    # In a plain archive, seek; of a compressed one, all bytes up to the last file requested are read
    mode = "r:" if archive.suffix == ".tar" else "r|*"
    with tarfile.open(archive, mode, bufsize=2**18) as tar:
        while (info := tar.next()) is not None:
            tar.members = []  # pyright: ignore[reportAttributeAccessIssue]  # it would grow with every member
            if info.isfile() and (content := tar.extractfile(info)):
                yield info.name, content


def seconds_of(audio: Path | IO[bytes]) -> float | None:
    """Return the duration in seconds that a sound file's header states; None where it states none.

    Args:
        audio: a path, or an open file. What cannot be read has no duration.
    """
    try:
        source = audio if isinstance(audio, Path) else BytesIO(audio.read())
        return soundfile.info(source).duration or None
    except (soundfile.SoundFileError, TypeError, OSError):
        return None


class ClipReader:
    """Reads clips' bytes, forward in one archive at a time.

    It keeps its position between calls: several calls, each for the next part of a tar.gz, read it once.
    """

    def __init__(self) -> None:
        self.archive: Path | None = None
        self.rest: Iterator[tuple[str, IO[bytes]]] = iter(())

    def read(self, clips: Sequence[Clip]) -> Iterator[tuple[int, bytes | AudioError]]:
        """Yield the bytes of clips, in the order in which they are stored.

        Args:
            clips: which clips to read.

        Yields:
            The index of a clip in `clips`, and its bytes or the error with which reading it failed.
        """
        archives: dict[Path, dict[str, list[int]]] = {}
        for i, clip in enumerate(clips):
            if clip.member:
                archives.setdefault(clip.audio, {}).setdefault(clip.member, []).append(i)
            else:
                yield i, _read_file(clip)
        for archive, wanted in archives.items():
            yield from self._read_archive(archive, wanted)
            for name, indices in wanted.items():
                error = MissingAudio(f"{archive}: holds no {name}, or ends before it; fetch it again")
                yield from ((i, error) for i in indices)

    def _read_archive(self, archive: Path, wanted: dict[str, list[int]]) -> Iterator[tuple[int, bytes]]:
        """Yield the members in `wanted`, and remove them from it: what remains is not in the archive."""
        for from_start in (False, True) if archive == self.archive else (True,):
            if from_start:
                self.archive, self.rest = archive, members(archive)
            try:
                for name, content in self.rest:
                    if name in wanted:
                        data = content.read()
                        yield from ((i, data) for i in wanted.pop(name))
                    if not wanted:
                        return
            except DAMAGED:
                self.archive = None


def _read_file(clip: Clip) -> bytes | AudioError:
    try:
        return clip.audio.read_bytes()
    except FileNotFoundError:
        return MissingAudio(f"{clip.audio}: no such file; check the spelling and the folder")
    except OSError as error:
        return AudioError(f"{clip.audio}: cannot be read ({error.strerror}); check its permissions")
