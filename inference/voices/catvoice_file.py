"""Reading and writing of `.catvoice` files, whose bytes `inference.voices.catvoice_format` describes."""

import logging
import math
from dataclasses import replace

from inference.voices.catvoice_format import (
    MAX_BYTES,
    SUFFIX,
    SavedAdaptation,
    SavedVoice,
    VoiceFileError,
    pack_voice,
    unpack_voice,
)
from inference.voices.decoder_adaptation import adaptation_shape
from inference.voices.voice import Voice, Voices
from tokenizer.codes.coded_audio import CodesError, check_origin, coded, decode_audio
from tokenizer.io.atomic_files import PathLike, check_target, new_file, read_bytes

logger = logging.getLogger(__name__)


def saved_voice(voices: Voices, voice: Voice, *, language: str = "", consent: str = "") -> SavedVoice:
    """Prepare the contents of a voice file.

    Args:
        voices: The models of the voice.
        voice: The voice to save, with its decoder adaptation.
        language: A BCP 47 tag, or nothing.
        consent: Who allowed what to be done with this voice.

    Returns:
        What `write_voice` writes.

    Raises:
        VoiceFileError: a text is too long or malformed.
    """
    codes, added = coded(voices.tokenizer, voice.codes), voice.decoder_adaptation
    power = float(decode_audio(voices.tokenizer, codes).square().mean())
    adaptation = None
    if added is not None:
        adaptation = SavedAdaptation(added=added.half(), decoder=voices.decoder_hash)
    return SavedVoice(
        coded=codes,
        text=voice.text,
        level_db=10 * math.log10(max(power, 1e-10)),
        language=language,
        consent=consent,
        decoder_adaptation=adaptation,
    )


def write_voice(path: PathLike, saved: SavedVoice) -> None:
    """Write a `.catvoice` file completely or not at all.

    Args:
        path: The file to write.
        saved: Its contents.

    Raises:
        VoiceFileError: the file cannot be written, or the prompt is too long.
    """
    check_voice_output(path)
    data = pack_voice(saved)
    with new_file(path, VoiceFileError) as file:
        file.write(data)


def read_voice(path: PathLike) -> SavedVoice:
    """Read a `.catvoice` file.

    Args:
        path: The file to read.

    Returns:
        Its contents.

    Raises:
        VoiceFileError: the file is not a valid `.catvoice` file; the message begins with its path.
    """
    data = read_bytes(path, MAX_BYTES, VoiceFileError)
    return parse_voice(data, str(path))


def parse_voice(data: bytes, name: str) -> SavedVoice:
    """Parse the bytes of a `.catvoice` file.

    Args:
        data: The bytes.
        name: What messages call the file.

    Returns:
        Its contents.

    Raises:
        VoiceFileError: the bytes are not those of such a file; the message begins with its name.
    """
    try:
        return replace(unpack_voice(data), name=name)
    except VoiceFileError as error:
        raise VoiceFileError(f"{name}: {error}") from None


def restore_voice(voices: Voices, saved: SavedVoice) -> Voice:
    """Return a saved voice as a voice of a model.

    Args:
        voices: The models.
        saved: The contents of a voice file.

    Returns:
        The voice with the codebooks of the model. An adaptation of another decoder is dropped with a warning.

    Raises:
        VoiceFileError: the voice does not fit the model.
    """
    config, name, (frames, layers) = voices.config, saved.name, saved.coded.codes.shape
    try:
        check_origin(voices.tokenizer, saved.coded, voices.fingerprint)
    except CodesError as error:
        raise VoiceFileError(f"{name}: {error}, or save the voice again with this one") from None
    if layers < config.num_codebooks:
        raise VoiceFileError(
            f"{name}: has {layers} layers, this model needs {config.num_codebooks}: save it again"
        )
    if frames > config.max_prompt_frames:
        raise VoiceFileError(
            f"{name}: has {frames} frames, this model takes {config.max_prompt_frames}: save a shorter prompt"
        )
    adaptation, added = saved.decoder_adaptation, None
    if adaptation is not None:
        fits = tuple(adaptation.added.shape) == adaptation_shape(voices.tokenizer)
        if fits and adaptation.decoder == voices.decoder_hash:
            added = adaptation.added.float()
        else:
            logger.warning(
                "%s: its decoder adaptation is of another decoder and left out; save the voice again", name
            )
    return Voice(
        codes=saved.coded.codes[:, : config.num_codebooks], text=saved.text, decoder_adaptation=added
    )


def check_voice_output(path: PathLike) -> None:
    """Raise VoiceFileError where `write_voice` could not write."""
    check_target(path, [SUFFIX], VoiceFileError, "voice file")
