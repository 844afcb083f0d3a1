"""Loading of models that belong together, on devices that are there."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tokenizer.config
from inference import SynthesisOptions, Synthesizer
from inference.engine.options import UNWATCHED
from tokenizer import AudioTokenizer


@pytest.fixture
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


def test_mismatched_models_are_refused(bundle: Path, published: tuple[Path, Path]) -> None:
    with pytest.raises(
        ValueError, match=r"speaks 32 codebooks of 64 codes, the tokenizer 6 of 32: they do not"
    ):
        Synthesizer.from_pretrained(published[0], bundle / "tokenizer", "cpu")
    with pytest.raises(
        ValueError, match=r"speaks 6 codebooks of 32 codes, the tokenizer 32 of 64: they do not"
    ):
        Synthesizer.from_pretrained(bundle, published[1], "cpu")


def test_a_tokenizer_may_be_deeper_but_not_shallower(synthesizer: Synthesizer, prompt_file: Path) -> None:
    tiny = tokenizer.config.tiny()
    shallower, deeper = (
        AudioTokenizer(replace(tiny, quantizer=replace(tiny.quantizer, num_codebooks=k))) for k in (5, 7)
    )
    with pytest.raises(ValueError, match="speaks 6 codebooks of 32 codes, the tokenizer 5 of 32"):
        Synthesizer(synthesizer.tts, synthesizer.text_tokenizer, shallower)
    wider = Synthesizer(synthesizer.tts, synthesizer.text_tokenizer, deeper)
    voice = wider.load_voice(prompt_file, "What it says.")
    result = wider.synthesize("Hi.", voice, SynthesisOptions(max_seconds=0.6, policy=UNWATCHED))
    assert result.depth == result.codes.shape[1] == 6


def test_a_bundle_in_the_published_layouts(published: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "tts").symlink_to(published[0])
    (tmp_path / "tokenizer").symlink_to(published[1])
    assert Synthesizer.from_pretrained(tmp_path, device="cpu").max_depth == 32


@pytest.mark.parametrize("device", ["cuda:4096", "abacus"])
def test_device_that_is_not_there(device: str) -> None:
    """The error comes before anything is loaded."""
    with pytest.raises(ValueError, match=f"^device '{device}': not on this machine; choose cpu"):
        Synthesizer.from_pretrained("no such folder", device=device)


def test_folders_that_hold_no_model(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such model folder"):
        Synthesizer.from_pretrained(tmp_path / "nothing")
    with pytest.raises(ValueError, match="this folder does not hold a model"):
        Synthesizer.from_pretrained(tmp_path, bundle / "tokenizer")
    with pytest.raises(ValueError, match="no such model folder"):
        Synthesizer.from_pretrained(bundle, tmp_path / "nothing")


def test_weights_of_8_bits_speak_too_and_other_devices_are_refused(bundle: Path, prompt_file: Path) -> None:
    pytest.importorskip("numba")
    synthesizer = Synthesizer.from_pretrained(bundle, device="cpu", weights="int8")
    result = synthesizer.synthesize(
        "the red fox",
        synthesizer.load_voice(prompt_file, "good morning"),
        SynthesisOptions(max_seconds=1.0, policy=UNWATCHED),
    )
    stream = synthesizer.stream(
        "the red fox",
        synthesizer.load_voice(prompt_file, "good morning"),
        SynthesisOptions(max_seconds=1.0, policy=UNWATCHED),
    )
    np.testing.assert_array_equal(np.concatenate(list(stream)), result.audio)
    with pytest.raises(ValueError, match="weights='int8' on meta"):
        Synthesizer.from_pretrained(bundle, device="meta", weights="int8")
