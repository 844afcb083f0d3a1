"""Reading and writing of `.catvoice` files, whose bytes `inference.voices.catvoice_format` describes."""

import hashlib
import logging
import math
from pathlib import Path
from typing import TypeGuard

from cat_tts import TTSConfig
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
from inference.voices.prompt_audio import PromptAudio
from inference.voices.voice import Voice, Voices
from tokenizer import AudioTokenizer
from tokenizer.codes.coded_audio import CodesError, check_origin, coded, decode_audio
from tokenizer.io.atomic_files import PathLike, check_target, new_file, read_bytes

logger = logging.getLogger(__name__)


def saved_voice(voices: Voices, voice: Voice, *, language: str = "", consent: str = "") -> SavedVoice:
    """Prepare the contents of a voice file.

    Args:
        voices: The models of the voice.
        voice: The voice to save; its decoder adaptation is computed where that is possible.
        language: A BCP 47 tag, or nothing.
        consent: Who allowed what to be done with this voice.

    Returns:
        What `write_voice` writes.

    Raises:
        VoiceFileError: a text is too long or malformed.
    """
    codes, added = coded(voices.tokenizer, voice.codes), voices.decoder_adaptation(voice)
    power = float(decode_audio(voices.tokenizer, codes).square().mean())
    adaptation = None
    if added is not None:
        adaptation = SavedAdaptation(added=added.half(), decoder=_decoder_hash(voices.tokenizer))
    return SavedVoice(
        coded=codes,
        text=voice.text,
        level_db=10 * math.log10(max(power, 1e-10)),
        language=language,
        consent=consent,
        decoder_adaptation=adaptation,
    )


def _decoder_hash(tokenizer: AudioTokenizer) -> bytes:
    """Return eight bytes that distinguish decoders by the projection that adaptations are added to."""
    weight = tokenizer.decoder[-1].project_out.get_parameter("weight")
    return hashlib.sha256(weight.detach().float().cpu().contiguous().numpy().tobytes()).digest()[:8]


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
    try:
        return unpack_voice(data)
    except VoiceFileError as error:
        raise VoiceFileError(f"{path}: {error}") from None


def load_voice(path: PathLike, tokenizer: AudioTokenizer, config: TTSConfig) -> Voice:
    """Read a `.catvoice` file as a voice of a model.

    Args:
        path: The file to read.
        tokenizer: The audio tokenizer of the model.
        config: Configuration of the TTS model.

    Returns:
        The voice with the codebooks of the model. An adaptation of another decoder is dropped with a warning.

    Raises:
        VoiceFileError: the file is not valid, or does not fit the model.
    """
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
    adaptation, added = saved.decoder_adaptation, None
    if adaptation is not None:
        fits = tuple(adaptation.added.shape) == adaptation_shape(tokenizer)
        if fits and adaptation.decoder == _decoder_hash(tokenizer):
            added = adaptation.added.float()
        else:
            logger.warning(
                "%s: its decoder adaptation is of another decoder and left out; save the voice again", path
            )
    return Voice(
        codes=saved.coded.codes[:, : config.num_codebooks], text=saved.text, decoder_adaptation=added
    )


def is_voice_file(prompt: PromptAudio | Voice) -> TypeGuard[str | Path]:
    """Return whether the prompt names a voice file rather than a recording: the suffix decides."""
    return isinstance(prompt, (str, Path)) and Path(prompt).suffix.lower() == SUFFIX


def prompt_text_of(prompt: PromptAudio | Voice, prompt_text: str) -> str:
    """Return the transcript of a prompt, which voices and voice files hold themselves.

    Args:
        prompt: A recording, a voice, or the path of a voice file.
        prompt_text: The transcript that the user gave, or nothing.

    Returns:
        The transcript of the voice, or `prompt_text` for a recording.

    Raises:
        ValueError: `prompt_text` contradicts the voice.
    """
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
    """Raise VoiceFileError where `write_voice` could not write."""
    check_target(path, [SUFFIX], VoiceFileError, "voice file")
