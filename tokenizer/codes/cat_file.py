"""The `.cat` format: codes of one signal, in a file that can be cut behind a layer to lower its depth.

All numbers are unsigned and little endian. The header has 40 bytes:

    offset  bytes  what
         0      6  the bytes 89 43 41 54 0D 0A ("CAT" between bytes that a text transfer would harm)
         6      1  version: 1
         7      1  flags: bit 0 is set for AI-generated speech, the others are 0
         8      4  codebook size v, 2 to 65536
        12      4  sample rate in Hz
        16      4  samples in a frame, f
        20      8  samples of the signal, n >= 1; it has t = ceil(n / f) frames
        28      8  hash of the tokenizer (`tokenizer.codes.coded_audio.fingerprint`)
        36      4  CRC-32 of bytes 0 to 35

Then come the layers, 1 to 255 of them, the first codebook first, each of ceil(t * w / 8) + 4 bytes, where w
is the number of bits of v - 1 (10 for 1024 codes):

    its t codes, w bits each, the most significant first, one right behind the other; zeros fill the last byte
    CRC-32 of bytes 0 to 35 of the file and the codes of all layers so far, this one included

The CRC-32 is that of zlib and PNG. The size of the file gives the number of layers: a file that is cut behind
a layer is, byte for byte, the file of the signal at that depth. One that is cut inside a layer is refused:
that is more likely damage than intent, and the error says where to cut.
The checksums find damage, not malice: whoever can change the codes can change the checksums.
"""

import struct
import zlib

import numpy as np
import torch
from jaxtyping import Int

from tokenizer.codes.coded_audio import MAX_CODEBOOK_SIZE, CodedAudio, CodesError, check_size, num_frames
from tokenizer.io.atomic_files import PathLike, check_target, new_file, read_bytes

SUFFIX = ".cat"
MAGIC, VERSION = b"\x89CAT\r\n", 1
MAX_BYTES = 2**26
"""A little more than `MAX_CODES` of the widest codes take."""

_HEADER, _CRC = struct.Struct("<6sBBIIIQ8s"), struct.Struct("<I")
_GENERATED = 1


def write_codes(path: PathLike, audio: CodedAudio) -> None:
    """Write a `.cat` file whole or not at all.

    Args:
        path: The file to write or replace, with the suffix `.cat`.
        audio: The codes.

    Raises:
        CodesError: If the file cannot be written.
    """
    check_codes_output(path)
    with new_file(path, CodesError) as file:
        file.write(pack_codes(audio))


def read_codes(path: PathLike) -> CodedAudio:
    """Read a `.cat` file, or what is left of one that was cut behind a layer.

    Args:
        path: The file.

    Returns:
        The codes of all its layers.

    Raises:
        CodesError: For anything else.
    """
    data = read_bytes(path, MAX_BYTES, CodesError)
    try:
        return unpack_codes(data)
    except CodesError as error:
        raise CodesError(f"{path}: {error}") from None


def check_codes_output(path: PathLike) -> None:
    """Raise CodesError where `write_codes` could not write `path`."""
    check_target(path, [SUFFIX], CodesError, "code file")


def pack_codes(audio: CodedAudio) -> bytes:
    """Return the bytes of the file of these codes."""
    head = _HEADER.pack(
        MAGIC,
        VERSION,
        _GENERATED if audio.generated else 0,
        audio.codebook_size,
        audio.sample_rate,
        audio.frame_size,
        audio.num_samples,
        audio.tokenizer,
    )
    checksum = zlib.crc32(head)
    parts, width = [head, _CRC.pack(checksum)], _width(audio.codebook_size)
    for layer in audio.codes.T.numpy():
        plane = _pack(layer, width)
        checksum = zlib.crc32(plane, checksum)
        parts += [plane, _CRC.pack(checksum)]
    return b"".join(parts)


def unpack_codes(data: bytes) -> CodedAudio:
    """Decode the bytes of a file; sizes are checked before memory is allocated for them.

    Args:
        data: The whole file.

    Returns:
        The codes of all its layers.

    Raises:
        CodesError: If the bytes are not those of a `.cat` file, or are damaged.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise CodesError(f"not a {SUFFIX} file")
    start = _HEADER.size + _CRC.size
    if len(data) < start:
        raise CodesError(f"cut off inside its header of {start} bytes: fetch it again")
    _, version, flags, *numbers, tokenizer = _HEADER.unpack_from(data)
    if version != VERSION:
        raise CodesError(f"version {version} of the format, this program reads {VERSION}: update it")
    checksum = zlib.crc32(data[: _HEADER.size])
    if _CRC.unpack_from(data, _HEADER.size)[0] != checksum:
        raise CodesError("its header is damaged: fetch it again")
    codebook_size, sample_rate, frame_size, num_samples = numbers
    if flags & ~_GENERATED or not 2 <= codebook_size <= MAX_CODEBOOK_SIZE or 0 in numbers:
        raise CodesError("its header says what cannot be: write it again")
    frames, width = num_frames(num_samples, frame_size), _width(codebook_size)
    size = -(-frames * width // 8)
    depth = _depth(len(data) - start, size + _CRC.size, start)
    check_size(frames, depth)
    codes = torch.empty(depth, frames, dtype=torch.long)
    for layer in range(depth):
        first = start + layer * (size + _CRC.size)
        plane = data[first : first + size]
        checksum = zlib.crc32(plane, checksum)
        if _CRC.unpack_from(data, first + size)[0] != checksum:
            raise CodesError(f"layer {layer + 1} of {depth} is damaged: fetch it again")
        codes[layer] = torch.from_numpy(_unpack(plane, frames, width))
    return CodedAudio(
        codes=codes.T.contiguous(),
        codebook_size=codebook_size,
        sample_rate=sample_rate,
        frame_size=frame_size,
        num_samples=num_samples,
        tokenizer=tokenizer,
        generated=bool(flags & _GENERATED),
    )


def _depth(size: int, layer_size: int, start: int) -> int:
    """Return the number of layers in `size` bytes behind the header."""
    depth, rest = divmod(size, layer_size)
    if not depth:
        raise CodesError(f"cut off inside its first layer, which ends at {start + layer_size} bytes")
    if rest:
        whole = start + depth * layer_size
        raise CodesError(
            f"cut off inside layer {depth + 1}: fetch it again, or cut it to {whole} bytes for {depth} layers"
        )
    return depth


def _width(codebook_size: int) -> int:
    return (codebook_size - 1).bit_length()


def _pack(codes: Int[np.ndarray, " t"], width: int) -> bytes:
    bits = np.unpackbits(codes.astype(">u2")[:, None].view(np.uint8), axis=1)
    return np.packbits(bits[:, 16 - width :]).tobytes()


def _unpack(plane: bytes, frames: int, width: int) -> Int[np.ndarray, " t"]:
    bits = np.unpackbits(np.frombuffer(plane, np.uint8))
    if bits[frames * width :].any():
        raise CodesError("bits are set where none belong: write it again")
    wide = np.pad(bits[: frames * width].reshape(frames, width), ((0, 0), (16 - width, 0)))
    return np.packbits(wide, axis=1).view(">u2")[:, 0].astype(np.int64)
