"""Voices by name: saved, spoken with, deleted; and names that try to be paths."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from inference import Synthesizer
from inference.server.voice_store import UnknownVoice, VoiceFolder
from inference.voices.catvoice_file import read_voice
from tokenizer import AudioError

INVALID_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/etc/passwd",
    "a\\b",
    "A",
    "a.b",
    "a\0",
    "-a",
    "\u00e9",
    "a" * 65,
    "a\n",
    "con ",
]


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture
def voices(synthesizer: Synthesizer, tmp_path: Path) -> VoiceFolder:
    return VoiceFolder(synthesizer, tmp_path / "deep" / "voices", max_voices=3)


def names(voices: VoiceFolder) -> list[str]:
    return [entry.name for entry in voices.entries()]


def test_a_voice_is_kept(voices: VoiceFolder, synthesizer: Synthesizer, prompt_file: Path) -> None:
    entry = voices.add("ann-1", prompt_file.read_bytes(), " What she says. ", "Ann said yes.", "en")
    assert entry.name == "ann-1" and names(voices) == ["default", "ann-1"] and entry.created > 1e9
    saved_voice, direct = voices.voice("ann-1"), synthesizer.load_voice(prompt_file, "What she says.")
    assert torch.equal(saved_voice.codes, direct.codes) and saved_voice.text == direct.text
    assert voices.folder is not None
    saved = read_voice(voices.folder / "ann-1.catvoice")
    assert (saved.consent, saved.language) == ("Ann said yes.", "en")
    assert [path.name for path in voices.folder.iterdir()] == ["ann-1.catvoice"]
    again = VoiceFolder(synthesizer, voices.folder)
    assert torch.equal(again.voice("ann-1").codes, direct.codes)
    voices.remove("ann-1")
    assert names(voices) == ["default"]
    with pytest.raises(UnknownVoice, match="no voice 'ann-1'"):
        voices.voice("ann-1")
    with pytest.raises(UnknownVoice):
        voices.remove("ann-1")


def test_the_default_voice(voices: VoiceFolder, prompt_file: Path) -> None:
    assert voices.voice("default").text.startswith("Someone else told")
    with pytest.raises(PermissionError, match="it stays"):
        voices.remove("default")
    with pytest.raises(FileExistsError):
        voices.add("default", prompt_file.read_bytes(), "Words.", "Yes.")


def test_names_are_taken_once(voices: VoiceFolder, prompt_file: Path) -> None:
    data = prompt_file.read_bytes()
    voices.add("a", data, "Words.", "Yes.")
    with pytest.raises(FileExistsError, match="delete it first"):
        voices.add("a", data, "Words.", "Yes.")
    voices.add("b", data, "Words.", "Yes.")
    voices.add("c", data, "Words.", "Yes.")
    with pytest.raises(ValueError, match="holds 3 voices, the most it may"):
        voices.add("d", data, "Words.", "Yes.")


def test_names_that_are_none(voices: VoiceFolder, prompt_file: Path) -> None:
    for name in INVALID_NAMES:
        with pytest.raises(ValueError, match="use up to 64 lower-case letters"):
            voices.add(name, prompt_file.read_bytes(), "Words.", "Yes.")
        with pytest.raises(UnknownVoice):
            voices.voice(name)
        with pytest.raises(UnknownVoice):
            voices.remove(name)


def test_what_is_no_prompt(voices: VoiceFolder, prompt_file: Path) -> None:
    data = prompt_file.read_bytes()
    for recording, text, consent, message in (
        (b"no audio", "Words.", "Yes.", "not readable as audio"),
        (data, " ", "Yes.", "transcript is empty"),
        (data, "Words.", " ", "consent is empty"),
        (data, "wo rd " * 600, "Yes.", "positions"),
        (data, "a\0b", "Yes.", "control characters"),
    ):
        with pytest.raises(ValueError, match=message):
            voices.add("a", recording, text, consent)
    assert names(voices) == ["default"]


def test_without_a_folder(synthesizer: Synthesizer, prompt_file: Path) -> None:
    voices = VoiceFolder(synthesizer)
    assert names(voices) == ["default"]
    with pytest.raises(PermissionError, match="--voices FOLDER"):
        voices.add("a", prompt_file.read_bytes(), "Words.", "Yes.")
    with pytest.raises(UnknownVoice):
        voices.voice("a")


def test_broken_and_foreign_files(voices: VoiceFolder, voice: np.ndarray) -> None:
    """A file that is no voice is named without its place; files of other names are none of ours."""
    assert voices.folder is not None
    (voices.folder / "x.catvoice").write_bytes(b"broken")
    (voices.folder / "Not A Name.catvoice").write_bytes(b"")
    (voices.folder / "notes.txt").write_bytes(b"")
    assert names(voices) == ["default", "x"]
    with pytest.raises(ValueError, match=r"^voice 'x': not a \.catvoice file") as error:
        voices.voice("x")
    assert str(voices.folder) not in str(error.value)


def test_a_folder_that_cannot_be(synthesizer: Synthesizer, prompt_file: Path) -> None:
    with pytest.raises(ValueError, match="cannot hold voices"):
        VoiceFolder(synthesizer, prompt_file / "voices")


def test_prompts_that_are_too_long(voices: VoiceFolder) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).normal(size=24_000 * 10) * 0.1, 24_000, format="FLAC")
    with pytest.raises(AudioError, match=r"up to 8 s, so cut it"):
        voices.add("a", file.getvalue(), "Words.", "Yes.")
