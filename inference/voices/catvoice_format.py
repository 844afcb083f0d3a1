"""The bytes of a `.catvoice` file: a voice for every model of the audio tokenizer that encoded it.

Numbers are unsigned and little endian. The header has 20 bytes, or 32, and the rest follows without gaps:

    offset  bytes  what
         0      7  the bytes 89 43 41 54 56 0D 0A ("CATV" between bytes that a text transfer would damage)
         7      1  version: 1, or 2 with a decoder adaptation
         8      2  bytes of the transcript, at most 8192
        10      2  bytes of the language, at most 35
        12      2  bytes of the consent note, at most 8192
        14      2  level of the voice in hundredths of dBFS (RMS): the one signed number
        16      4  bytes of the codes
        20      2  of version 2 alone: rows of the decoder adaptation
        22      2  and its columns
        24      8  SHA-256, its first bytes, of the decoder's last projection (row by row, float32)
  20 or 32         transcript, language, consent note: UTF-8
                   codes: a `.cat` file (`tokenizer.codes.cat_file`)
                   of version 2: what the voice adds to that projection, row by row, in half precision
                4  CRC-32 of all bytes before

Texts have no control characters but line breaks and tabs. The language is a BCP 47 tag such as "en" or
"zh-TW", or empty where none was given.
"""

import re
import struct
import unicodedata
import zlib
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from tokenizer.codes.cat_file import pack_codes, unpack_codes
from tokenizer.codes.coded_audio import CodedAudio, CodesError

SUFFIX = ".catvoice"
MAGIC, PLAIN_VERSION, ADAPTED_VERSION = b"\x89CATV\r\n", 1, 2
MAX_BYTES = 2**20
"""Half an hour of 32 layers: far more than a prompt."""
MAX_TEXT_BYTES = {"transcript": 8192, "language": 35, "consent note": 8192}
"""Limits of the texts in UTF-8."""

_HEADER, _ADAPTATION, _CRC = struct.Struct("<7sBHHHhI"), struct.Struct("<HH8s"), struct.Struct("<I")
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")


class VoiceFileError(ValueError):
    """A voice file cannot be read, written or used: one line with what is wrong and the cure."""


@dataclass(frozen=True, kw_only=True)
class SavedAdaptation:
    """What a voice adds to the last projection of one audio decoder."""

    added: Float[torch.Tensor, "o d"]
    """The matrix in half precision."""
    decoder: bytes
    """The first 8 bytes of the hash of that projection."""

    def __post_init__(self) -> None:
        if not self.added.isfinite().all():
            raise VoiceFileError("its decoder adaptation is not finite: save the voice again")


@dataclass(frozen=True, kw_only=True)
class SavedVoice:
    """The contents of a voice file."""

    coded: CodedAudio
    """The prompt, with all its codebooks."""
    text: str
    """The transcript of the prompt; only the reference mode works without."""
    level_db: float
    """RMS in dBFS of the decoded codes."""
    language: str = ""
    consent: str = ""
    """Who allowed what to be done with this voice, in plain words."""
    decoder_adaptation: SavedAdaptation | None = None
    """Where the prompt was a recording, and the decoder could be adapted to it."""
    name: str = field(default="this voice file", compare=False)
    """What messages call it."""

    def __post_init__(self) -> None:
        check_labels(*self.texts)
        if not -327 < self.level_db < 327:
            raise VoiceFileError(f"a level of {self.level_db} dBFS cannot be")

    @property
    def texts(self) -> tuple[str, str, str]:
        """Transcript, language and consent note, in the order of the file."""
        return self.text, self.language, self.consent


def check_labels(text: str, language: str, consent: str) -> None:
    """Check that a voice file can hold these texts.

    Args:
        text: The transcript.
        language: A BCP 47 tag, or nothing.
        consent: The consent note.

    Raises:
        VoiceFileError: a text is too long or malformed.
    """
    for (name, max_bytes), label in zip(MAX_TEXT_BYTES.items(), (text, language, consent), strict=True):
        try:
            size = len(label.encode())
        except UnicodeEncodeError:
            raise VoiceFileError(f"the {name} {label!r:.80} is not Unicode text: write it again") from None
        if size > max_bytes:
            raise VoiceFileError(f"the {name} has {size} bytes, {max_bytes} can be: shorten it")
        if any(unicodedata.category(c) == "Cc" and c not in "\r\n\t" for c in label):
            raise VoiceFileError(f"the {name} {label!r:.80} has control characters: leave them out")
    if language and not _LANGUAGE.fullmatch(language):
        raise VoiceFileError(f"the language {language!r} is no tag such as en or zh-TW")


def pack_voice(saved: SavedVoice) -> bytes:
    """Encode the contents of a voice file.

    Args:
        saved: What the file shall hold.

    Returns:
        The bytes of the file.

    Raises:
        VoiceFileError: the prompt is too long.
    """
    texts, codes = [text.encode() for text in saved.texts], pack_codes(saved.coded)
    adaptation = saved.decoder_adaptation
    sizes, level = [len(text) for text in texts], round(100 * saved.level_db)
    version = ADAPTED_VERSION if adaptation else PLAIN_VERSION
    head, tail = _HEADER.pack(MAGIC, version, *sizes, level, len(codes)), b""
    if adaptation:
        head += _ADAPTATION.pack(*adaptation.added.shape, adaptation.decoder)
        tail = adaptation.added.numpy().astype("<f2").tobytes()
    data = b"".join([head, *texts, codes, tail])
    if len(data) + _CRC.size > MAX_BYTES:
        raise VoiceFileError(f"a voice of {saved.coded.seconds:.0f} s is too long for a file: give a prompt")
    return data + _CRC.pack(zlib.crc32(data))


def unpack_voice(data: bytes) -> SavedVoice:
    """Decode the bytes of a voice file.

    Args:
        data: All bytes of the file.

    Returns:
        The contents.

    Raises:
        VoiceFileError: the bytes are not those of a valid voice file.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise VoiceFileError(f"not a {SUFFIX} file")
    if len(data) < _HEADER.size + _CRC.size:
        raise VoiceFileError("cut off: fetch it again")
    _, version, *sizes, level, codes_size = _HEADER.unpack_from(data)
    sizes.append(codes_size)
    if version not in (PLAIN_VERSION, ADAPTED_VERSION):
        raise VoiceFileError(
            f"version {version} of the format, this program reads {PLAIN_VERSION} and {ADAPTED_VERSION}: "
            "update it"
        )
    start, rows, columns, decoder = _HEADER.size, 0, 0, b""
    if version == ADAPTED_VERSION:
        if len(data) < _HEADER.size + _ADAPTATION.size + _CRC.size:
            raise VoiceFileError("cut off: fetch it again")
        rows, columns, decoder = _ADAPTATION.unpack_from(data, start)
        start += _ADAPTATION.size
    sizes.append(2 * rows * columns)
    if len(data) != start + sum(sizes) + _CRC.size:
        raise VoiceFileError(f"has {len(data)} bytes where its header says otherwise: fetch it again")
    if _CRC.unpack_from(data, len(data) - _CRC.size)[0] != zlib.crc32(data[: -_CRC.size]):
        raise VoiceFileError("is damaged: fetch it again")
    parts = []
    for size in sizes:
        parts.append(data[start : start + size])
        start += size
    *texts, codes, added = parts
    adaptation = None
    if version == ADAPTED_VERSION:
        matrix = np.frombuffer(added, "<f2").astype(np.float16).reshape(rows, columns)
        adaptation = SavedAdaptation(added=torch.from_numpy(matrix), decoder=decoder)
    try:
        text, language, consent = (part.decode() for part in texts)
        return SavedVoice(
            coded=unpack_codes(codes),
            text=text,
            level_db=level / 100,
            language=language,
            consent=consent,
            decoder_adaptation=adaptation,
        )
    except UnicodeDecodeError:
        raise VoiceFileError("its texts are not UTF-8: save the voice again") from None
    except CodesError as error:
        raise VoiceFileError(f"its codes: {error}") from None
