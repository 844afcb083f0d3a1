"""Saving of a result as audio and as codes, both marked as generated."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from inference import SynthesisResult, Synthesizer
from inference.engine.options import UNWATCHED, SynthesisOptions
from inference.synthesis.save import check_result_output, save_result
from tokenizer import AudioError, CodesError, read_codes
from tokenizer.io.audio import AI_GENERATED


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture(scope="module")
def result(synthesizer: Synthesizer, prompt_file: Path) -> SynthesisResult:
    return synthesizer.synthesize(
        "Good morning.",
        synthesizer.load_voice(prompt_file, "What it says."),
        SynthesisOptions(depth=3, max_seconds=0.4, policy=UNWATCHED),
    )


def test_audio(synthesizer: Synthesizer, result: SynthesisResult, tmp_path: Path) -> None:
    save_result(tmp_path / "a.flac", result, synthesizer.tokenizer)
    with soundfile.SoundFile(tmp_path / "a.flac") as file:
        assert (file.comment, file.samplerate) == (AI_GENERATED, 24_000)
        assert np.abs(file.read() - result.audio).max() < 1e-4


def test_codes(synthesizer: Synthesizer, result: SynthesisResult, tmp_path: Path) -> None:
    save_result(tmp_path / "a.cat", result, synthesizer.tokenizer)
    coded = read_codes(tmp_path / "a.cat")
    assert torch.equal(coded.codes, result.codes) and coded.num_samples == len(result.audio)
    assert coded.generated


def test_refusals(synthesizer: Synthesizer, result: SynthesisResult, tmp_path: Path) -> None:
    nothing = replace(result, codes=result.codes[:0], audio=result.audio[:0])
    with pytest.raises(AudioError, match="the result has no audio to save"):
        save_result(tmp_path / "a.cat", nothing, synthesizer.tokenizer)
    with pytest.raises(AudioError, match="unknown kind of audio file"):
        check_result_output(tmp_path / "a.dog")
    with pytest.raises(CodesError, match="does not exist"):
        check_result_output(tmp_path / "gone" / "a.cat")
    assert not list(tmp_path.iterdir())
