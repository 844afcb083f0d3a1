"""`cat-tts encode` and `decode`: a recording to a `.cat` file and back, by the audio tokenizer alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from inference.device import usable_device
from inference.synthesis.loading import DEFAULT_MODEL
from tokenizer import AudioTokenizer
from tokenizer.codes.cat_file import check_codes_output, pack_codes, read_codes, write_codes
from tokenizer.codes.coded_audio import CodedAudio, CodesError, decode_audio, encode_audio
from tokenizer.io.audio import AI_GENERATED, check_output, load_audio, save_audio
from tokenizer.io.checkpoint import local_folder


@dataclass(frozen=True, kw_only=True)
class EncodeCommand:
    """Encode a recording to a small file of codes."""

    audio: Annotated[Path, tyro.conf.Positional]
    """Recording: wav, flac, ogg or mp3."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """File to write: .cat."""
    depth: int | None = None
    """Codebooks to use, 1 to all; more sound better and take more room. All by default."""
    model: str | None = None
    """Folder or hub id of a model with its audio tokenizer, or of an audio tokenizer alone, such as
    OpenMOSS-Team/MOSS-Audio-Tokenizer; the embedded model by default."""
    device: str | None = None
    """cpu or cuda; cuda where there is one by default."""


@dataclass(frozen=True, kw_only=True)
class DecodeCommand:
    """Decode a file of codes, or the part that is left of a truncated one, to audio."""

    codes: Annotated[Path, tyro.conf.Positional]
    """File of codes: .cat."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """File to write: wav, flac, ogg or mp3."""
    depth: int | None = None
    """Codebooks to use, 1 to all of the file. All by default."""
    model: str | None = None
    """The model that encoded the recording, as for encode."""
    device: str | None = None
    """cpu or cuda; cuda where there is one by default."""


def encode(options: EncodeCommand) -> None:
    """Run the command.

    Args:
        options: The options of the command line.

    Raises:
        ValueError: A mistake that the user can cure; found before a model is loaded, where possible.
    """
    check_codes_output(options.output)
    load_audio(options.audio)
    tokenizer = load_tokenizer(options.model, options.device)
    audio = load_audio(options.audio, tokenizer.config.sample_rate)
    coded = encode_audio(tokenizer, audio, options.depth)
    write_codes(options.output, coded)
    print(f"{options.output}: {describe_codes(coded)}, {len(pack_codes(coded))} bytes")


def decode(options: DecodeCommand) -> None:
    """Run the command.

    Args:
        options: The options of the command line.

    Raises:
        ValueError: A mistake that the user can cure; found before a model is loaded, where possible.
    """
    check_output(options.output)
    coded = read_codes(options.codes).at_depth(options.depth)
    tokenizer = load_tokenizer(options.model, options.device)
    try:
        audio = decode_audio(tokenizer, coded)
    except CodesError as error:
        raise CodesError(f"{options.codes}: {error}") from None
    comment = AI_GENERATED if coded.generated else ""
    save_audio(options.output, audio, coded.sample_rate, comment=comment)
    print(f"{options.output}: {describe_codes(coded)}")


def load_tokenizer(model: str | None, device: str | None) -> AudioTokenizer:
    """Load the audio tokenizer that a model includes, or that `model` is.

    Args:
        model: A folder or hub id; None for the embedded model.
        device: Where to load it; None for cuda where there is one.

    Returns:
        The tokenizer on its device.

    Raises:
        ValueError: There is no such model or device.
    """
    device = usable_device(device)
    folder = local_folder(DEFAULT_MODEL if model is None else model)
    inner = folder / "tokenizer"
    return AudioTokenizer.from_pretrained(inner if inner.is_dir() else folder).to(device)


def describe_codes(coded: CodedAudio) -> str:
    """Return a line with the length, depth, bitrate and tokenizer of codes."""
    origin = ", AI-generated" if coded.generated else ""
    return (
        f"{coded.seconds:.2f} s at {coded.sample_rate} Hz, depth {coded.depth}, {coded.bitrate:.0f} bit/s, "
        f"tokenizer {coded.tokenizer.hex()}{origin}"
    )
