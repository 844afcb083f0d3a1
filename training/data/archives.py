"""The bytes of clips, from files and from tar archives that are never unpacked."""

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
"""What reading a tar archive that is cut off or is none raises."""


class MissingAudio(AudioError):
    """There is nothing to read, as opposed to something that cannot be read."""


def archives_in(folder: Path) -> list[Path]:
    """The tar archives of a folder, by name."""
    return sorted(path for path in folder.glob("*") if path.name.endswith(TAR_SUFFIXES))


def members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and contents of an archive's files, front to back; each content until the next one is asked for.

    Raises one of DAMAGED where the archive ends early.
    """
    # A plain archive is sought through; of a compressed one all bytes up to the last that is wanted are read
    mode = "r:" if archive.suffix == ".tar" else "r|*"
    with tarfile.open(archive, mode, bufsize=2**18) as tar:
        while (info := tar.next()) is not None:
            tar.members = []  # pyright: ignore[reportAttributeAccessIssue]  # it would keep them all
            if info.isfile() and (content := tar.extractfile(info)):
                yield info.name, content


def seconds_of(audio: Path | IO[bytes]) -> float | None:
    """The duration that the header of a sound tells; None where it cannot be read, or there is none."""
    try:
        source = audio if isinstance(audio, Path) else BytesIO(audio.read())
        return soundfile.info(source).duration or None
    except (soundfile.SoundFileError, TypeError, OSError):
        return None


class ClipReader:
    """Reads clips' bytes, forward in one archive at a time.

    It stays where it stopped: calls for the parts of a tar.gz, one behind the other, read it once.
    """

    def __init__(self) -> None:
        self.archive: Path | None = None
        self.rest: Iterator[tuple[str, IO[bytes]]] = iter(())

    def read(self, clips: Sequence[Clip]) -> Iterator[tuple[int, bytes | AudioError]]:
        """The number of each clip, with its bytes or what is wrong with it; archives decide the order."""
        archives: dict[Path, dict[str, list[int]]] = {}
        for i, clip in enumerate(clips):
            if clip.member:
                archives.setdefault(clip.audio, {}).setdefault(clip.member, []).append(i)
            else:
                yield i, _read_file(clip)
        for archive, wanted in archives.items():
            yield from self._read_archive(archive, wanted)
            for name, numbers in wanted.items():
                error = MissingAudio(f"{archive}: holds no {name}, or ends before it; fetch it again")
                yield from ((i, error) for i in numbers)

    def _read_archive(self, archive: Path, wanted: dict[str, list[int]]) -> Iterator[tuple[int, bytes]]:
        """What is found of `wanted`, which keeps what is not."""
        for begin in (False, True) if archive == self.archive else (True,):
            if begin:
                self.archive, self.rest = archive, members(archive)
            try:
                for name, content in self.rest:
                    if name in wanted:
                        found = content.read()
                        yield from ((i, found) for i in wanted.pop(name))
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
