"""Saving of a result: as audio that is marked as AI-generated, or as its codes."""

from pathlib import Path

import torch

from inference.engine.result import SynthesisResult
from tokenizer import AudioTokenizer
from tokenizer.codes.cat_file import SUFFIX, check_codes_output, write_codes
from tokenizer.codes.coded_audio import coded
from tokenizer.io.atomic_files import PathLike
from tokenizer.io.audio import AI_GENERATED, AudioError, check_output, save_audio


def save_result(path: PathLike, result: SynthesisResult, tokenizer: AudioTokenizer) -> None:
    """Write the audio of a result, or its codes to a `.cat` file; both are marked as AI-generated.

    Codes in a file are decoded without the prompt before them, so their first seconds sound a little
    different.

    Args:
        path: The file to write; its suffix determines the format.
        result: What was synthesized.
        tokenizer: The audio tokenizer of its codes.

    Raises:
        AudioError: the result has no audio.
        ValueError: the file cannot be written.
    """
    check_result_output(path)
    if not len(result.codes):
        raise AudioError(f"{path}: the result has no audio to save; synthesize it again")
    if Path(path).suffix.lower() == SUFFIX:
        write_codes(path, coded(tokenizer, result.codes, generated=True))
    else:
        save_audio(path, torch.from_numpy(result.audio), result.sample_rate, comment=AI_GENERATED)


def check_result_output(path: PathLike) -> None:
    """Raise ValueError where `save_result` could not write."""
    if Path(path).suffix.lower() == SUFFIX:
        check_codes_output(path)
    else:
        check_output(path)
