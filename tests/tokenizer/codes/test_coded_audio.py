"""Audio as codes: any length, any depth, and only by the tokenizer that made them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tokenizer.config
from tokenizer import AudioTokenizer
from tokenizer.codes.coded_audio import (
    CHUNK_FRAMES,
    MAX_FRAMES,
    CodedAudio,
    CodesError,
    check_size,
    decode_audio,
    encode_audio,
    fingerprint,
)


@pytest.fixture
def model(codec: Path) -> AudioTokenizer:
    return AudioTokenizer.from_pretrained(codec)


def noise(samples: int) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("samples", [1, 1919, 1920, 1921, 10_000])
def test_length_and_codes(model: AudioTokenizer, samples: int) -> None:
    audio = noise(samples)
    coded = encode_audio(model, audio)
    assert (coded.num_samples, coded.depth, coded.generated) == (samples, 6, False)
    assert torch.equal(coded.codes, model.encode(audio[None])[0])
    torch.testing.assert_close(decode_audio(model, coded), model.decode(coded.codes[None])[0, :samples])


def test_every_depth_is_a_prefix(model: AudioTokenizer) -> None:
    audio = noise(9000)
    whole = encode_audio(model, audio)
    for depth in range(1, 7):
        assert torch.equal(encode_audio(model, audio, depth).codes, whole.codes[:, :depth])
        decoded = decode_audio(model, whole, depth)
        assert torch.equal(decoded, decode_audio(model, whole.at_depth(depth)))
        torch.testing.assert_close(decoded, model.decode(whole.codes[None, :, :depth])[0, :9000])


def test_long_audio_goes_through_in_a_stream(model: AudioTokenizer) -> None:
    audio = noise((CHUNK_FRAMES + 3) * 1920 - 7)
    coded = encode_audio(model, audio)
    assert torch.equal(coded.codes, model.encode(audio[None])[0])
    decoded = decode_audio(model, coded)
    torch.testing.assert_close(decoded, model.decode(coded.codes[None])[0, :-7])


def test_fingerprint_names_the_quantizer(model: AudioTokenizer, codec: Path) -> None:
    name = fingerprint(model)
    assert len(name) == 8
    assert fingerprint(AudioTokenizer.from_pretrained(codec)) == name
    with torch.no_grad():
        model.decoder[0].layers[0].ffn_out.weight.add_(1)
        assert fingerprint(model) == name
        model.quantizer.layers[-1].codebook.weight[-1, -1] += 1e-6
    assert fingerprint(model) != name


def test_the_layout_on_disk_does_not_matter(published: tuple[Path, Path], tmp_path: Path) -> None:
    theirs = AudioTokenizer.from_pretrained(published[1])
    theirs.save_pretrained(tmp_path)
    assert fingerprint(AudioTokenizer.from_pretrained(tmp_path)) == fingerprint(theirs)


def test_codes_of_another_tokenizer_are_refused(model: AudioTokenizer) -> None:
    coded = encode_audio(model, noise(4000))
    other = AudioTokenizer(tokenizer.config.tiny()).eval()
    with pytest.raises(CodesError, match=f"made by the tokenizer {coded.tokenizer.hex()}, but this one is "):
        decode_audio(other, coded)
    for wrong in (
        replace(coded, codebook_size=64),
        replace(coded, sample_rate=16_000),
        replace(coded, codes=coded.codes.repeat(1, 2)),
        replace(coded, frame_size=1921),
    ):
        with pytest.raises(CodesError, match=r"cannot be of the tokenizer \w+ that it names"):
            decode_audio(model, wrong)


@pytest.mark.parametrize("depth", [0, -1, 7])
def test_depths_that_are_not_there(model: AudioTokenizer, depth: int) -> None:
    coded = encode_audio(model, noise(4000))
    with pytest.raises(CodesError, match=f"depth {depth}: these codes have 6 layers, choose 1 to 6"):
        decode_audio(model, coded, depth)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"codes": torch.zeros(2, 2)}, "give integers"),
        ({"codes": torch.zeros(4).long()}, "give integers"),
        ({"codes": torch.zeros(2, 0).long()}, "0 layers"),
        ({"codes": torch.zeros(2, 256).long()}, "256 layers"),
        ({"codes": torch.zeros(3, 2).long()}, "3 frames of 10 samples for 20"),
        ({"num_samples": 21}, "2 frames of 10 samples for 21"),
        ({"num_samples": 0}, "0 samples at 24000 Hz"),
        ({"sample_rate": 0}, "at 0 Hz"),
        ({"frame_size": 2**32}, "4294967296 a frame"),
        ({"codebook_size": 1}, "a codebook of 1 "),
        ({"codebook_size": 2**16 + 1}, "a codebook of 65537 "),
        ({"codes": torch.full((2, 2), 32)}, "outside the codebook of 32"),
        ({"codes": torch.full((2, 2), -1)}, "outside the codebook of 32"),
        ({"tokenizer": b"short"}, "5 bytes"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_impossible_fields(wrong: dict, message: str) -> None:
    right = {
        "codes": torch.zeros(2, 2).long(),
        "codebook_size": 32,
        "sample_rate": 24_000,
        "frame_size": 10,
        "num_samples": 20,
        "tokenizer": bytes(8),
    }
    CodedAudio(**right)
    with pytest.raises(CodesError, match=message):
        CodedAudio(**{**right, **wrong})


def test_how_much_a_file_may_hold() -> None:
    check_size(2**19, 32)
    for frames, layers in [(2**19 + 1, 32), (MAX_FRAMES + 1, 1)]:
        with pytest.raises(CodesError, match="so cut the audio"):
            check_size(frames, layers)
