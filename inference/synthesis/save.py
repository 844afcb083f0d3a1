"""A take in a file: as audio that says it was generated, or as its codes."""

from pathlib import Path

import torch

from inference.engine.result import Take
from tokenizer import AudioTokenizer
from tokenizer.codes.cat_file import SUFFIX, check_codes_output, write_codes
from tokenizer.codes.coded_audio import coded
from tokenizer.io.atomic_files import PathLike
from tokenizer.io.audio import AI_GENERATED, AudioError, check_output, save_audio


def save_take(path: PathLike, take: Take, tokenizer: AudioTokenizer) -> None:
    """Write the audio, or to a `.cat` file the codes; both are marked as AI-generated.

    Codes are decoded without the prompt before them, so their first seconds sound a little different.
    """
    check_take_output(path)
    if not len(take.codes):
        raise AudioError(f"{path}: the take has no audio to save; make it again")
    if Path(path).suffix.lower() == SUFFIX:
        write_codes(path, coded(tokenizer, take.codes, generated=True))
    else:
        save_audio(path, torch.from_numpy(take.audio), take.sample_rate, comment=AI_GENERATED)


def check_take_output(path: PathLike) -> None:
    """ValueError where `save_take` could not write."""
    if Path(path).suffix.lower() == SUFFIX:
        check_codes_output(path)
    else:
        check_output(path)
