"""`.catvoice`: a voice in a file, to be spoken with by every model of the tokenizer that made it.

Numbers are unsigned and little endian. The header has 20 bytes, or 32, and the rest follows without gaps:

    offset  bytes  what
         0      7  the bytes 89 43 41 54 56 0D 0A ("CATV" between bytes that a text transfer would harm)
         7      1  version: 1, or 2 with a timbre
         8      2  bytes of the transcript, at most 8192
        10      2  bytes of the language, at most 35
        12      2  bytes of the consent note, at most 8192
        14      2  level of the voice in hundredths of dBFS (RMS): the one signed number
        16      4  bytes of the codes
        20      2  of version 2 alone: rows of the timbre
        22      2  and its columns
        24      8  SHA-256, its first bytes, of the decoder's last projection (row by row, float32)
  20 or 32         transcript, language, consent note: UTF-8
                   codes: a `.cat` file (`tokenizer.codes.cat_file`)
                   of version 2: what the voice adds to that projection, row by row, in half precision
                4  CRC-32 of all bytes before

Texts have no control characters but line breaks and tabs. The language is a BCP 47 tag such as "en" or
"zh-TW", or empty where none was given.
"""

import hashlib
import logging
import math
import re
import struct
import unicodedata
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import numpy as np
import torch
from jaxtyping import Float

from cat_tts import TTSConfig
from inference.voices.decoder_adaptation import timbre_shape
from inference.voices.prompt_audio import PromptAudio
from inference.voices.voice import Voice, Voices
from tokenizer import AudioTokenizer
from tokenizer.codes.cat_file import pack_codes, unpack_codes
from tokenizer.codes.coded_audio import CodedAudio, CodesError, check_origin, coded, decode_audio
from tokenizer.io.atomic_files import PathLike, check_target, new_file, read_bytes

SUFFIX = ".catvoice"
MAGIC, PLAIN, WITH_TIMBRE = b"\x89CATV\r\n", 1, 2
MOST_BYTES = 2**20
"""Half an hour of 32 layers: far more than a prompt."""
MOST_TEXT = {"transcript": 8192, "language": 35, "consent note": 8192}
"""Bytes of UTF-8."""

_HEADER, _TIMBRE, _CRC = struct.Struct("<7sBHHHhI"), struct.Struct("<HH8s"), struct.Struct("<I")
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
logger = logging.getLogger(__name__)


class VoiceFileError(ValueError):
    """A voice file that cannot be read, written or used: one line with what is wrong and the cure."""


@dataclass(frozen=True, kw_only=True)
class SavedTimbre:
    """What a voice adds to the last projection of one decoder."""

    added: Float[torch.Tensor, "o d"]
    """In half precision."""
    decoder: bytes
    """Names that decoder."""

    def __post_init__(self) -> None:
        if not self.added.isfinite().all():
            raise VoiceFileError("its timbre is not finite: save the voice again")


@dataclass(frozen=True, kw_only=True)
class SavedVoice:
    """What a voice file holds."""

    coded: CodedAudio
    """The prompt, at all depths."""
    text: str
    """What the prompt says; only the reference mode does without."""
    level_db: float
    """RMS in dBFS of what the codes sound like."""
    language: str = ""
    consent: str = ""
    """Who allowed what to be done with this voice, in plain words."""
    timbre: SavedTimbre | None = None
    """Where the prompt was a recording, and the decoder could be tuned to it."""

    def __post_init__(self) -> None:
        check_labels(*self.texts)
        if not -327 < self.level_db < 327:
            raise VoiceFileError(f"a level of {self.level_db} dBFS cannot be")

    @property
    def texts(self) -> tuple[str, str, str]:
        return self.text, self.language, self.consent


def check_labels(text: str, language: str, consent: str) -> None:
    """VoiceFileError for texts that a voice file cannot hold."""
    for (name, most), label in zip(MOST_TEXT.items(), (text, language, consent), strict=True):
        try:
            size = len(label.encode())
        except UnicodeEncodeError:
            raise VoiceFileError(f"the {name} {label!r:.80} is not Unicode text: write it again") from None
        if size > most:
            raise VoiceFileError(f"the {name} has {size} bytes, {most} can be: shorten it")
        if any(unicodedata.category(c) == "Cc" and c not in "\r\n\t" for c in label):
            raise VoiceFileError(f"the {name} {label!r:.80} has control characters: leave them out")
    if language and not _LANGUAGE.fullmatch(language):
        raise VoiceFileError(f"the language {language!r} is no tag such as en or zh-TW")


def saved_voice(voices: Voices, voice: Voice, *, language: str = "", consent: str = "") -> SavedVoice:
    """A voice of `voices` as a file holds it."""
    codes, added = coded(voices.tokenizer, voice.codes), voices.timbre(voice)
    power = float(decode_audio(voices.tokenizer, codes).square().mean())
    return SavedVoice(
        coded=codes,
        text=voice.text,
        level_db=10 * math.log10(max(power, 1e-10)),
        language=language,
        consent=consent,
        timbre=None if added is None else SavedTimbre(added=added.half(), decoder=_name(voices.tokenizer)),
    )


def _name(tokenizer: AudioTokenizer) -> bytes:
    """Eight bytes that tell decoders apart by what timbres are added to."""
    weight = tokenizer.decoder[-1].project_out.get_parameter("weight")
    return hashlib.sha256(weight.detach().float().cpu().contiguous().numpy().tobytes()).digest()[:8]


def write_voice(path: PathLike, saved: SavedVoice) -> None:
    """Write a `.catvoice` file whole or not at all."""
    check_voice_output(path)
    data = pack_voice(saved)
    with new_file(path, VoiceFileError) as file:
        file.write(data)


def read_voice(path: PathLike) -> SavedVoice:
    """Read a `.catvoice` file; VoiceFileError for anything else."""
    data = read_bytes(path, MOST_BYTES, VoiceFileError)
    try:
        return unpack_voice(data)
    except VoiceFileError as error:
        raise VoiceFileError(f"{path}: {error}") from None


def load_voice(path: PathLike, tokenizer: AudioTokenizer, config: TTSConfig) -> Voice:
    """The voice for a model of `config` that speaks with `tokenizer`; VoiceFileError if it does not fit."""
    saved = read_voice(path)
    frames, layers = saved.coded.codes.shape
    try:
        check_origin(tokenizer, saved.coded)
    except CodesError as error:
        raise VoiceFileError(f"{path}: {error}, or save the voice again with this one") from None
    if layers < config.num_codebooks:
        raise VoiceFileError(
            f"{path}: has {layers} layers, this model needs {config.num_codebooks}: save it again"
        )
    if frames > config.max_prompt_frames:
        raise VoiceFileError(
            f"{path}: has {frames} frames, this model takes {config.max_prompt_frames}: save a shorter prompt"
        )
    own, timbre = saved.timbre, None
    if own is not None:
        if tuple(own.added.shape) == timbre_shape(tokenizer) and own.decoder == _name(tokenizer):
            timbre = own.added.float()
        else:
            logger.warning("%s: its timbre is of another decoder and left out; save the voice again", path)
    return Voice(codes=saved.coded.codes[:, : config.num_codebooks], text=saved.text, timbre=timbre)


def is_voice_file(prompt: PromptAudio | Voice) -> TypeGuard[str | Path]:
    """Whether the prompt names a voice file rather than a recording: the suffix decides."""
    return isinstance(prompt, (str, Path)) and Path(prompt).suffix.lower() == SUFFIX


def known_text(prompt: PromptAudio | Voice, prompt_text: str) -> str:
    """What the prompt says: a voice knows it itself, and ValueError if something else is given."""
    if is_voice_file(prompt):
        text = read_voice(prompt).text
    elif isinstance(prompt, Voice):
        text = prompt.text
    else:
        return prompt_text
    if prompt_text not in ("", text):
        raise ValueError(f"this voice says {text!r}, not {prompt_text!r}: leave it out")
    return text


def check_voice_output(path: PathLike) -> None:
    """VoiceFileError where `write_voice` could not write."""
    check_target(path, [SUFFIX], VoiceFileError, "voice file")


def pack_voice(saved: SavedVoice) -> bytes:
    """The bytes of the file."""
    texts, codes, timbre = [text.encode() for text in saved.texts], pack_codes(saved.coded), saved.timbre
    sizes, level = [len(text) for text in texts], round(100 * saved.level_db)
    head, tail = _HEADER.pack(MAGIC, WITH_TIMBRE if timbre else PLAIN, *sizes, level, len(codes)), b""
    if timbre:
        head += _TIMBRE.pack(*timbre.added.shape, timbre.decoder)
        tail = timbre.added.numpy().astype("<f2").tobytes()
    data = b"".join([head, *texts, codes, tail])
    if len(data) + _CRC.size > MOST_BYTES:
        raise VoiceFileError(f"a voice of {saved.coded.seconds:.0f} s is too long for a file: give a prompt")
    return data + _CRC.pack(zlib.crc32(data))


def unpack_voice(data: bytes) -> SavedVoice:
    """What the bytes of a file hold, or a VoiceFileError."""
    if data[: len(MAGIC)] != MAGIC:
        raise VoiceFileError(f"not a {SUFFIX} file")
    if len(data) < _HEADER.size + _CRC.size:
        raise VoiceFileError("cut off: fetch it again")
    _, version, *sizes, level, last = _HEADER.unpack_from(data)
    sizes.append(last)
    if version not in (PLAIN, WITH_TIMBRE):
        raise VoiceFileError(
            f"version {version} of the format, this program reads {PLAIN} and {WITH_TIMBRE}: update it"
        )
    start, rows, columns, decoder = _HEADER.size, 0, 0, b""
    if version == WITH_TIMBRE:
        if len(data) < _HEADER.size + _TIMBRE.size + _CRC.size:
            raise VoiceFileError("cut off: fetch it again")
        rows, columns, decoder = _TIMBRE.unpack_from(data, start)
        start += _TIMBRE.size
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
    timbre = None
    if version == WITH_TIMBRE:
        matrix = np.frombuffer(added, "<f2").astype(np.float16).reshape(rows, columns)
        timbre = SavedTimbre(added=torch.from_numpy(matrix), decoder=decoder)
    try:
        text, language, consent = (part.decode() for part in texts)
        return SavedVoice(
            coded=unpack_codes(codes),
            text=text,
            level_db=level / 100,
            language=language,
            consent=consent,
            timbre=timbre,
        )
    except UnicodeDecodeError:
        raise VoiceFileError("its texts are not UTF-8: save the voice again") from None
    except CodesError as error:
        raise VoiceFileError(f"its codes: {error}") from None
