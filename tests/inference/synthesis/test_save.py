"""A take in a file: marked as generated, as audio and as codes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from inference import Synthesizer, Take
from inference.synthesis.save import check_take_output, save_take
from tokenizer import AudioError, CodesError, read_codes
from tokenizer.io.audio import AI_GENERATED


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture(scope="module")
def take(synthesizer: Synthesizer, prompt_file: Path) -> Take:
    return synthesizer.take("Good morning.", prompt_file, "What it says.", depth=3, max_seconds=0.4)


def test_audio(synthesizer: Synthesizer, take: Take, tmp_path: Path) -> None:
    save_take(tmp_path / "a.flac", take, synthesizer.tokenizer)
    with soundfile.SoundFile(tmp_path / "a.flac") as file:
        assert (file.comment, file.samplerate) == (AI_GENERATED, 24_000)
        assert np.abs(file.read() - take.audio).max() < 1e-4


def test_codes(synthesizer: Synthesizer, take: Take, tmp_path: Path) -> None:
    save_take(tmp_path / "a.cat", take, synthesizer.tokenizer)
    coded = read_codes(tmp_path / "a.cat")
    assert torch.equal(coded.codes, take.codes) and coded.num_samples == len(take.audio)
    assert coded.generated


def test_refusals(synthesizer: Synthesizer, take: Take, tmp_path: Path) -> None:
    nothing = replace(take, codes=take.codes[:0], audio=take.audio[:0])
    with pytest.raises(AudioError, match="the take has no audio to save"):
        save_take(tmp_path / "a.cat", nothing, synthesizer.tokenizer)
    with pytest.raises(AudioError, match="unknown kind of audio file"):
        check_take_output(tmp_path / "a.dog")
    with pytest.raises(CodesError, match="does not exist"):
        check_take_output(tmp_path / "gone" / "a.cat")
    assert not list(tmp_path.iterdir())
