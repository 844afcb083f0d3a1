"""The `.cat` format: its bytes, its cuts, and what damage or malice can do to it."""

import random
import struct
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tokenizer import AudioTokenizer
from tokenizer.codes.cat_file import (
    MAX_BYTES,
    check_codes_output,
    pack_codes,
    read_codes,
    unpack_codes,
    write_codes,
)
from tokenizer.codes.coded_audio import CodedAudio, CodesError, decode_audio, encode_audio

SMALL = CodedAudio(
    codes=torch.tensor([[1023, 1], [512, 682]]),
    codebook_size=1024,
    sample_rate=24_000,
    frame_size=1920,
    num_samples=3000,
    tokenizer=b"ABCDEFGH",
    generated=True,
)
HEAD = bytes.fromhex("89434154 0d0a 01 01 00040000 c05d0000 80070000 b80b000000000000 4142434445464748")
LAYERS = bytes([0b11111111, 0b11100000, 0b00000000]), bytes([0b00000000, 0b01101010, 0b10100000])
BYTES = b"".join(
    part + struct.pack("<I", zlib.crc32(covered))
    for part, covered in [
        (HEAD, HEAD),
        (LAYERS[0], HEAD + LAYERS[0]),
        (LAYERS[1], HEAD + LAYERS[0] + LAYERS[1]),
    ]
)


def random_audio(frames: int, layers: int, size: int = 1024, **more: object) -> CodedAudio:
    codes = torch.randint(size, (frames, layers))
    return replace(SMALL, codes=codes, codebook_size=size, num_samples=1920 * frames, **more)


def fields(audio: CodedAudio) -> dict[str, object]:
    """All but the codes."""
    return {name: value for name, value in vars(audio).items() if name != "codes"}


def assert_same(one: CodedAudio, other: CodedAudio) -> None:
    assert torch.equal(one.codes, other.codes) and fields(one) == fields(other)


def test_two_frames_of_two_layers_by_hand() -> None:
    assert pack_codes(SMALL) == BYTES
    assert len(BYTES) == 40 + 2 * (3 + 4)
    assert_same(unpack_codes(BYTES), SMALL)


@pytest.mark.parametrize("size", [2, 3, 31, 32, 1000, 1024, 65_536])
@pytest.mark.parametrize("frames", [1, 2, 7, 64])
def test_codes_come_back_whatever_their_width(size: int, frames: int) -> None:
    audio = random_audio(frames, 3, size)
    audio.codes[0] = size - 1
    assert_same(unpack_codes(pack_codes(audio)), audio)


def test_through_a_file(tmp_path: Path) -> None:
    audio = random_audio(20, 32, generated=False)
    write_codes(tmp_path / "a.cat", audio)
    assert_same(read_codes(tmp_path / "a.cat"), audio)
    assert [path.name for path in tmp_path.iterdir()] == ["a.cat"]


def test_ten_seconds_of_32_layers_take_5200_bytes_at_most() -> None:
    assert len(pack_codes(random_audio(125, 32))) == 40 + 32 * (157 + 4) == 5192


def test_a_cut_behind_a_layer_is_the_file_of_that_depth(codec: Path, tmp_path: Path) -> None:
    """Byte for byte, and so in the decoded audio."""
    model, path = AudioTokenizer.from_pretrained(codec), tmp_path / "a.cat"
    whole = encode_audio(model, 0.1 * torch.randn(9000))
    data = pack_codes(whole)
    layer = (len(data) - 40) // 6
    for depth in range(1, 7):
        prefix = data[: 40 + depth * layer]
        assert prefix == pack_codes(whole.at_depth(depth))
        path.write_bytes(prefix)
        cut = read_codes(path)
        assert_same(cut, whole.at_depth(depth))
        assert torch.equal(decode_audio(model, cut), decode_audio(model, whole, depth))


def test_any_prefix_of_32_layers() -> None:
    audio = random_audio(5, 32)
    data = pack_codes(audio)
    for depth in range(1, 33):
        assert_same(unpack_codes(data[: 40 + depth * (7 + 4)]), audio.at_depth(depth))


def test_a_cut_at_any_byte_is_fewer_layers_or_an_error() -> None:
    data = pack_codes(random_audio(5, 4))
    for size in range(len(data)):
        depth, rest = divmod(size - 40, 11)
        if depth >= 1 and not rest:
            assert unpack_codes(data[:size]).depth == depth
            continue
        with pytest.raises(CodesError) as caught:
            unpack_codes(data[:size])
        message = str(caught.value)
        if size < 6:
            assert message == "not a .cat file"
        elif size < 40:
            assert message.startswith("cut off inside its header")
        elif depth == 0:
            assert message == "cut off inside its first layer, which ends at 51 bytes"
        else:
            assert f"inside layer {depth + 1}" in message
            assert f"cut it to {40 + 11 * depth} bytes for {depth} layers" in message


def test_any_other_byte_is_detected() -> None:
    """Each of the 255 other values of each byte."""
    for position in range(len(BYTES)):
        for value in range(256):
            if value != BYTES[position]:
                with pytest.raises(CodesError):
                    unpack_codes(BYTES[:position] + bytes([value]) + BYTES[position + 1 :])


def test_layers_that_changed_places_are_detected() -> None:
    data = pack_codes(random_audio(5, 3))
    one, two, three = (data[40 + 11 * i : 51 + 11 * i] for i in range(3))
    for wrong in (two + one + three, one + three, one + one, one + two + three + three, two):
        with pytest.raises(CodesError, match="damaged"):
            unpack_codes(data[:40] + wrong)


def crafted(layers: bytes = b"", **changes: int | bytes) -> bytes:
    """A file whose checksums are right, whatever else is wrong."""
    names = ["magic", "version", "flags", "size", "rate", "frame", "samples", "hash"]
    values = dict(zip(names, struct.unpack("<6sBBIIIQ8s", HEAD), strict=True)) | changes
    head = struct.pack("<6sBBIIIQ8s", *values.values())
    checksums = struct.pack("<I", zlib.crc32(head)), struct.pack("<I", zlib.crc32(head + layers))
    return head + checksums[0] + layers + checksums[1]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"not a \.cat file"),
        (b"RIFF" + bytes(100), r"not a \.cat file"),
        (crafted(LAYERS[0], version=2), "version 2 of the format, this program reads 1: update it"),
        (crafted(LAYERS[0], flags=2), "says what cannot be"),
        (crafted(b"", size=1), "says what cannot be"),
        (crafted(b"", size=0), "says what cannot be"),
        (crafted(LAYERS[0], size=2**17), "says what cannot be"),
        (crafted(LAYERS[0], rate=0), "says what cannot be"),
        (crafted(LAYERS[0], frame=0), "says what cannot be"),
        (crafted(b"", samples=0), "says what cannot be"),
        (crafted(LAYERS[0], samples=2**64 - 1), "cut off inside its first layer"),
        (crafted(LAYERS[0], samples=2**64 - 1, frame=1), "cut off inside its first layer"),
        (crafted(b"\xff\xff\xf8"), "bits are set where none belong"),
        (crafted(b"\xff\xff\xf0", size=1000), "a code outside the codebook of 1000"),
        (crafted(LAYERS[0]) * 2, "damaged|cut off"),
    ],
)
def test_what_a_right_checksum_does_not_excuse(data: bytes, message: str) -> None:
    assert_same(unpack_codes(crafted(LAYERS[0])), SMALL.at_depth(1))
    with pytest.raises(CodesError, match=message) as caught:
        unpack_codes(data)
    assert "\n" not in str(caught.value)


def test_more_layers_than_can_be() -> None:
    head = crafted(b"", samples=1, frame=1)[:40]
    with pytest.raises(CodesError, match="256 layers of codes: 1 to 255 can be"):
        unpack_codes(head + bytes(256 * 6))


def test_thousands_of_mutations_end_in_the_one_error() -> None:
    """Bytes changed, cut out and doubled, in half of them with the header's checksum made right again;
    whatever comes of it takes little memory."""
    rng, data = random.Random(0), pack_codes(random_audio(9, 5))
    read = 0
    tracemalloc.start()
    for turn in range(4000):
        mutant = bytearray(data)
        for _ in range(rng.randrange(1, 5)):
            first, last = sorted(rng.choices(range(len(mutant) + 1), k=2))
            match rng.randrange(4):
                case 0:
                    mutant[first:last] = rng.randbytes(last - first)
                case 1:
                    del mutant[first:last]
                case 2:
                    mutant[first:first] = mutant[first:last]
                case 3 if len(mutant) > 36:
                    mutant[rng.randrange(6, 36)] = rng.choice([0, 1, 127, 128, 255])
        if turn % 2 and len(mutant) >= 40:
            mutant[36:40] = struct.pack("<I", zlib.crc32(mutant[:36]))
        try:
            read += unpack_codes(bytes(mutant)).depth > 0
        except CodesError as error:
            assert "\n" not in str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6
    assert 0 < read < 2000


def test_large_files_are_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "a.cat", "wb") as file:
        file.write(BYTES)
        file.truncate(2**33)  # a hole
    tracemalloc.start()
    with pytest.raises(CodesError, match=rf"a\.cat: {2**33} bytes; such a file has at most {MAX_BYTES}"):
        read_codes(tmp_path / "a.cat")
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.cat").write_bytes(BYTES[:-1])
    with pytest.raises(
        CodesError, match=r"a\.cat: cut off inside layer 2: .* cut it to 47 bytes for 1 layers"
    ):
        read_codes(tmp_path / "a.cat")
    with pytest.raises(CodesError, match=r"b\.cat: no such file"):
        read_codes(tmp_path / "b.cat")
    with pytest.raises(CodesError, match=r"end the name with one of \.cat"):
        write_codes(tmp_path / "b.dog", SMALL)
    with pytest.raises(CodesError, match="does not exist"):
        check_codes_output(tmp_path / "gone" / "b.cat")
    assert [path.name for path in tmp_path.iterdir()] == ["a.cat"]
