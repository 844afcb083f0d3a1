"""The `.catvoice` format, and voices from files give the results of their prompts."""

import random
import struct
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inference import Synthesizer
from inference.engine.options import UNWATCHED
from inference.voices.catvoice_file import read_voice, saved_voice, write_voice
from inference.voices.catvoice_format import (
    MAX_BYTES,
    SavedAdaptation,
    SavedVoice,
    VoiceFileError,
    pack_voice,
    unpack_voice,
)
from tokenizer.codes.cat_file import pack_codes
from tokenizer.codes.coded_audio import CodedAudio, encode_audio

PROMPT_TEXT, TEXT = "What the recording says.", "Good morning, old fox."
CODED = CodedAudio(
    codes=torch.tensor([[31, 1], [16, 2]]),
    codebook_size=32,
    sample_rate=24_000,
    frame_size=1920,
    num_samples=3840,
    tokenizer=b"ABCDEFGH",
)
SMALL = SavedVoice(coded=CODED, text="A\u00fc.", language="de", consent="Ann: yes", level_db=-23.5)
HEAD = bytes.fromhex("89434154560d0a 01 0400 0200 0800 d2f6") + struct.pack("<I", 40 + 2 * 6)
BODY = HEAD + b"A\xc3\xbc." + b"de" + b"Ann: yes" + pack_codes(CODED)
BYTES = BODY + struct.pack("<I", zlib.crc32(BODY))
ADAPTATION = SavedAdaptation(added=torch.tensor([[1.0, -2.0, 0.5]]).half(), decoder=b"decoder1")
"""The adaptation in a file of version 2."""
ADAPTED_BODY = (
    HEAD[:7] + b"\x02" + HEAD[8:] + b"\x01\0\x03\0decoder1" + BODY[20:] + bytes.fromhex("003c 00c0 0038")
)


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


def assert_same(one: SavedVoice, other: SavedVoice) -> None:
    assert (one.texts, one.level_db) == (other.texts, other.level_db)
    if one.decoder_adaptation is None or other.decoder_adaptation is None:
        assert one.decoder_adaptation is other.decoder_adaptation
    else:
        assert torch.equal(one.decoder_adaptation.added, other.decoder_adaptation.added)
        assert one.decoder_adaptation.decoder == other.decoder_adaptation.decoder
    assert pack_codes(one.coded) == pack_codes(other.coded)


def sealed(body: bytes) -> bytes:
    """Return a file with a valid checksum, whatever else is wrong."""
    return body + struct.pack("<I", zlib.crc32(body))


def test_by_hand() -> None:
    assert pack_voice(SMALL) == BYTES
    assert_same(unpack_voice(BYTES), SMALL)
    adapted = replace(SMALL, decoder_adaptation=ADAPTATION)
    assert pack_voice(adapted) == sealed(ADAPTED_BODY)
    assert_same(unpack_voice(sealed(ADAPTED_BODY)), adapted)


def test_a_voice_file_gives_the_result_of_its_prompt(
    synthesizer: Synthesizer, prompt_file: Path, tmp_path: Path
) -> None:
    voice = synthesizer.load_voice(prompt_file, PROMPT_TEXT)
    path = tmp_path / "ann.catvoice"
    write_voice(path, saved_voice(synthesizer.voices, voice, language="en", consent="Ann"))
    assert [file.name for file in tmp_path.iterdir()] == ["ann.catvoice"]
    loaded = synthesizer.load_voice(path)
    assert loaded.text == PROMPT_TEXT and torch.equal(loaded.codes, voice.codes) and loaded.key == voice.key
    for depth in (1, 6):
        options = {"depth": depth, "max_seconds": 0.4, "policy": UNWATCHED}
        expected, _ = synthesizer.clone(TEXT, prompt_file, PROMPT_TEXT, **options)
        for prompt in (path, str(path), path.read_bytes(), loaded):
            assert np.array_equal(synthesizer.clone(TEXT, prompt, **options)[0], expected)


def test_level_and_length_are_those_of_the_voice(synthesizer: Synthesizer, prompt_file: Path) -> None:
    voice = synthesizer.load_voice(prompt_file, PROMPT_TEXT)
    saved = saved_voice(synthesizer.voices, voice)
    decoded = synthesizer.tokenizer.decode(voice.codes[None])
    assert saved.level_db == pytest.approx(20 * float(decoded.square().mean().sqrt().log10()), abs=1e-3)
    assert saved.coded.seconds == len(voice.codes) * 0.08


def test_a_voice_of_another_tokenizer_is_refused(synthesizer: Synthesizer, tmp_path: Path) -> None:
    path = tmp_path / "other.catvoice"
    write_voice(path, SMALL)
    with pytest.raises(
        VoiceFileError, match=r"other\.catvoice: made by the tokenizer 4142434445464748, but "
    ):
        synthesizer.load_voice(path)


def test_voices_that_do_not_fit_the_model(synthesizer: Synthesizer, tmp_path: Path) -> None:
    whole = encode_audio(synthesizer.tokenizer, 0.1 * torch.randn(4000))
    path = tmp_path / "a.catvoice"
    write_voice(path, replace(SMALL, coded=whole.at_depth(5)))
    with pytest.raises(VoiceFileError, match=r"a\.catvoice: has 5 layers, this model needs 6"):
        synthesizer.load_voice(path)
    write_voice(path, replace(SMALL, coded=encode_audio(synthesizer.tokenizer, torch.randn(101 * 1920))))
    with pytest.raises(VoiceFileError, match=r"a\.catvoice: has 101 frames, this model takes 100"):
        synthesizer.load_voice(path)


def test_a_model_of_fewer_codebooks_takes_those_it_speaks(
    synthesizer: Synthesizer, published: tuple[Path, Path], tmp_path: Path
) -> None:
    theirs = Synthesizer.from_pretrained(*published, device="cpu")
    coded = encode_audio(theirs.tokenizer, 0.1 * torch.randn(4000))
    write_voice(tmp_path / "a.catvoice", replace(SMALL, coded=coded))
    voice = theirs.load_voice(tmp_path / "a.catvoice")
    assert torch.equal(voice.codes, coded.codes[:, : theirs.max_depth])


def test_any_other_byte_is_detected() -> None:
    for whole in (BYTES, sealed(ADAPTED_BODY)):
        for position in range(len(whole)):
            for value in range(256):
                if value != whole[position]:
                    with pytest.raises(VoiceFileError):
                        unpack_voice(whole[:position] + bytes([value]) + whole[position + 1 :])


def test_a_cut_at_any_byte_is_an_error() -> None:
    for whole in (BYTES, sealed(ADAPTED_BODY)):
        for size in range(len(whole)):
            with pytest.raises(VoiceFileError, match=r"not a \.catvoice|cut off|bytes where its header"):
                unpack_voice(whole[:size])
    with pytest.raises(VoiceFileError, match="bytes where its header"):
        unpack_voice(BYTES + b"more")


def test_errors_behind_a_valid_checksum() -> None:
    assert_same(unpack_voice(sealed(BODY)), SMALL)
    for body, message in [
        (BODY[:7] + b"\x03" + BODY[8:], "version 3 of the format, this program reads 1 and 2: update it"),
        (BODY[:7] + b"\x02" + BODY[8:], "bytes where its header says otherwise"),
        (ADAPTED_BODY[:-2] + b"\x00\x7c", "its decoder adaptation is not finite"),
        (BODY.replace(b"\xc3\xbc", b"\xc3\xc3"), "not UTF-8"),
        (BODY.replace(b"Ann: yes", b"Ann:\x1b[1m"), r"consent note 'Ann:\\x1b\[1m' has control characters"),
        (BODY.replace(b"Ann: yes", b"Ann:\0yes"), "control characters"),
        (BODY.replace(b"de", b"d "), "language 'd ' is no tag"),
        (BODY.replace(b"\xd2\xf6", b"\0\x80"), r"level of -327\.68 dBFS"),
        (BODY[:-1] + bytes([BODY[-1] ^ 1]), "its codes: layer 2 of 2 is damaged"),
        (BODY.replace(b"\x89CAT\r", b"\x89DOG\r"), r"its codes: not a \.cat file"),
    ]:
        with pytest.raises(VoiceFileError, match=message) as caught:
            unpack_voice(sealed(body))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"text": "\u00fc" * 4097}, "the transcript has 8194 bytes, 8192 can be: shorten it"),
        ({"consent": "x" * 8193}, "the consent note has 8193 bytes"),
        ({"language": "english language"}, "the language 'english language' is no tag such as en"),
        ({"language": "en-" * 20}, "the language has 60 bytes"),
        ({"text": "a\x07"}, "control characters"),
        ({"text": "\ud800"}, "not Unicode text"),
        ({"level_db": float("nan")}, "a level of nan"),
    ],
)
def test_invalid_texts(wrong: dict, message: str) -> None:
    with pytest.raises(VoiceFileError, match=message) as caught:
        replace(SMALL, **wrong)
    assert "\n" not in str(caught.value)


def test_the_longest_texts_and_other_alphabets_come_back() -> None:
    saved = replace(SMALL, text="\u4f60\n\u597d\t" * 1024, consent="\U0001f408" * 2048, language="zh-Hant-TW")
    assert_same(unpack_voice(pack_voice(saved)), saved)


def test_thousands_of_mutations_end_in_the_one_error() -> None:
    """Bytes are changed, removed and repeated, and half of the files get a valid checksum."""
    rng, read = random.Random(0), 0
    tracemalloc.start()
    for turn in range(4000):
        mutant = bytearray(rng.choice([BODY, ADAPTED_BODY]))
        for _ in range(rng.randrange(1, 4)):
            first, last = sorted(rng.choices(range(len(mutant) + 1), k=2))
            match rng.randrange(4):
                case 0:
                    mutant[first:last] = rng.randbytes(last - first)
                case 1:
                    del mutant[first:last]
                case 2:
                    mutant[first:first] = mutant[first:last]
                case 3 if len(mutant) > 20:
                    mutant[rng.randrange(7, len(mutant))] = rng.choice([0, 1, 65, 127, 255])
        data = sealed(bytes(mutant)) if turn % 2 else bytes(mutant) + BYTES[-4:]
        try:
            unpack_voice(data)
            read += 1
        except VoiceFileError as error:
            assert "\n" not in str(error) and len(str(error)) < 300
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6
    assert 0 < read < 2000


def test_files(tmp_path: Path) -> None:
    write_voice(tmp_path / "a.catvoice", SMALL)
    assert_same(read_voice(tmp_path / "a.catvoice"), SMALL)
    with open(tmp_path / "b.catvoice", "wb") as file:
        file.truncate(2**33)
    with pytest.raises(VoiceFileError, match=f"such a file has at most {MAX_BYTES}"):
        read_voice(tmp_path / "b.catvoice")
    with pytest.raises(VoiceFileError, match=r"c\.catvoice: no such file"):
        read_voice(tmp_path / "c.catvoice")
    with pytest.raises(VoiceFileError, match=r"end the name with one of \.catvoice"):
        write_voice(tmp_path / "c.voice", SMALL)
    hour = torch.zeros(45_000, 32).long()
    long = replace(CODED, codes=hour, codebook_size=1024, num_samples=45_000 * 1920)
    with pytest.raises(VoiceFileError, match="a voice of 3600 s is too long for a file"):
        write_voice(tmp_path / "c.catvoice", replace(SMALL, coded=long))
    assert not (tmp_path / "c.catvoice").exists()
