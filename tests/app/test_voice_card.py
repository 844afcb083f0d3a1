"""What the page does with users' recordings and voice files, without a browser."""

import contextlib
import random
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

gr = pytest.importorskip("gradio")

from inference.demo.clone_tab import CloneTab  # noqa: E402
from inference.demo.codec_tab import CodecTab  # noqa: E402
from inference.demo.common import EXAMPLE, EXAMPLES  # noqa: E402
from inference.demo.session import DemoSession  # noqa: E402
from inference.synthesis.adapted_services import VoiceServices  # noqa: E402
from inference.synthesis.service import Service  # noqa: E402
from tests.helpers.page import SPEED, TRANSCRIPT, on_a_page, spoken  # noqa: E402

pytestmark = pytest.mark.usefixtures("gradio_files")


def test_a_new_clip_is_described(tab: CloneTab, prompt_file: Path) -> None:
    card = tab.voice
    shown = card.load_prompt("en", str(prompt_file))
    assert shown[card.advice].startswith("1.2 s. It lasts 1.2 s: 3 s or more")
    assert shown[card.picture]["visible"] and card.prompt not in shown
    assert card.load_prompt("en", None)[card.picture]["visible"] is False


def test_a_clip_that_was_trimmed_is_loaded_anew(tab: CloneTab, prompt_file: Path, tmp_path: Path) -> None:
    """Gradio has no event for it: the clip is only another one than before."""
    card = tab.voice
    prompt_checksum = card.load_prompt("en", str(prompt_file))[card.prompt_checksum]
    trimmed, copy = tmp_path / "trimmed.wav", tmp_path / "copy.wav"
    audio, rate = soundfile.read(prompt_file)
    soundfile.write(trimmed, audio[: len(audio) * 2 // 3], rate)
    shown = card.load_trimmed_prompt("en", str(trimmed), prompt_checksum)
    assert shown[card.advice].startswith("0.8 s.") and shown[card.opened_voice] is None
    assert shown[card.prompt_checksum] not in (None, prompt_checksum)
    copy.write_bytes(prompt_file.read_bytes())  # as Gradio keeps what it shows
    for path, before in ((str(copy), prompt_checksum), (None, prompt_checksum), (str(trimmed), None)):
        assert card.advice not in card.load_trimmed_prompt("en", path, before)


def test_a_long_clip_is_cut_and_said_to_be(tab: CloneTab, voice: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(voice, 10), 24_000)
    shown = tab.voice.load_prompt("en", str(path))
    assert soundfile.info(shown[tab.voice.prompt]).duration <= 8.0  # the longest prompt of this model
    assert "It was cut in a pause" in shown[tab.voice.advice]


def test_a_silent_clip_is_reported(tab: CloneTab, tmp_path: Path) -> None:
    path = tmp_path / "silent.wav"
    soundfile.write(path, np.zeros(48_000), 24_000)
    for act in (
        lambda: tab.voice.load_prompt("en", str(path)),
        lambda: spoken(tab, DemoSession(), prompt=str(path)),
    ):
        with pytest.raises(gr.Error, match="is silent"):
            act()


def test_examples_bring_their_transcripts(tab: CloneTab) -> None:
    """Real voices of several people, each good enough that nothing is to be said of it."""
    card = tab.voice
    assert len(EXAMPLES) == 5 and next(iter(EXAMPLES.values())) == EXAMPLE
    for name, path in EXAMPLES.items():
        shown = card.load_example("en", name)
        assert shown[card.prompt] == str(path) and shown[card.examples] == name
        assert shown[card.transcript] == path.with_suffix(".txt").read_text().strip() != ""
        assert re.fullmatch(r"[345]\.\d s\.", shown[card.advice])
        assert path == EXAMPLE or path.name in (path.parent / "README.md").read_text()
    assert card.load_example("en", None) == {}


def test_words_are_recognized_and_never_overwritten(
    two_slot_service: Service, tab: CloneTab, tmp_path: Path
) -> None:
    card, quiet = tab.voice, tmp_path / "quiet.wav"
    soundfile.write(quiet, np.random.default_rng(0).uniform(-0.005, 0.005, 48_000), 24_000)
    assert (
        card.recognize("en", str(EXAMPLE)) == card.recognize_new("en", str(EXAMPLE), " ") == "One two three."
    )
    for result in (card.recognize_new("en", str(EXAMPLE), "Mine."), card.recognize_new("en", None, "")):
        assert result == gr.skip()
    for path, message in ((str(quiet), "no words were recognized"), (None, "there is no voice yet")):
        with pytest.raises(gr.Error, match=message):
            card.recognize("en", path)
    without, ids = on_a_page(lambda: CloneTab(VoiceServices(two_slot_service), SPEED, None, gr.Textbox()))
    assert "no_recognizer" in ids and "recognize" not in ids and without.voice.recognizer is None


def test_a_voice_is_saved_and_opened_again(tab: CloneTab, prompt_file: Path) -> None:
    card = tab.voice
    with pytest.raises(gr.Error, match="tick the box"):
        card.save_voice_file("en", False, str(prompt_file), TRANSCRIPT, None)
    saved = card.save_voice_file("en", True, str(prompt_file), TRANSCRIPT, None)["value"]
    shown = card.open_voice_file("en", saved)
    voice = tab.models.load_voice(prompt_file, TRANSCRIPT)
    assert shown[card.transcript] == TRANSCRIPT and torch.equal(
        shown[card.opened_voice].coded.codes.long(), voice.codes
    )
    assert "1.2 s, from a voice file. Consent: Whoever saved" in shown[card.advice]
    session = DemoSession()
    opened_voice = {"prompt": shown[card.prompt], "opened_voice": shown[card.opened_voice]}
    spoken(tab, session, **opened_voice)
    spoken(tab, session, prompt=str(prompt_file))
    assert np.array_equal(session.results[0].whole.audio, session.results[1].whole.audio)
    with pytest.raises(gr.Error, match="leave it out"):
        spoken(tab, session, **opened_voice, transcript="Something else.")
    assert card.load_prompt("en", shown[card.prompt])[card.opened_voice] is None


def test_a_file_that_is_no_voice_is_reported_without_its_folder(tab: CloneTab, tmp_path: Path) -> None:
    path = tmp_path / "friend.catvoice"
    path.write_bytes(b"no voice")
    with pytest.raises(gr.Error, match=r"friend\.catvoice: not a") as caught:
        tab.voice.open_voice_file("en", str(path))
    assert str(tmp_path) not in caught.value.message
    path = tmp_path / "notes.wav"
    path.write_bytes(b"no audio")
    with pytest.raises(gr.Error, match=r"^.?notes\.wav: not readable"):
        tab.voice.load_prompt("en", str(path))


@pytest.mark.parametrize("turns", [40, pytest.param(3000, marks=pytest.mark.slow)])
def test_mutated_files_are_taken_or_refused(
    tab: CloneTab, two_slot_service: Service, prompt_file: Path, tmp_path: Path, turns: int
) -> None:
    """Recordings and voice files of strangers, by each control: shown, or refused in a line."""
    codec, _ = on_a_page(lambda: CodecTab(two_slot_service.models.tokenizer, gr.Textbox()))
    flac = tmp_path / "good.flac"
    soundfile.write(flac, soundfile.read(prompt_file)[0][:14_400], 24_000)
    voice = Path(tab.voice.save_voice_file("en", True, str(prompt_file), TRANSCRIPT, None)["value"])
    acts = [
        (flac, ".flac", lambda path: tab.voice.load_prompt("en", path)),
        (flac, ".wav", lambda path: codec.encode("en", path, 2)),
        (voice, ".catvoice", lambda path: tab.voice.open_voice_file("en", path)),
    ]
    rng = random.Random(turns)
    for turn in range(turns):
        good, suffix, act = acts[turn % 3]
        data = bytearray(good.read_bytes())
        for _ in range(rng.choice([1, 3, 20])):
            data[rng.randrange(rng.choice([60, len(data)]))] = rng.randrange(256)
        path = tmp_path / f"sent{suffix}"
        path.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        with contextlib.suppress(gr.Error):
            act(str(path))


def test_the_codec_alone(two_slot_service: Service, prompt_file: Path) -> None:
    tab, _ = on_a_page(lambda: CodecTab(two_slot_service.models.tokenizer, gr.Textbox()))
    with pytest.raises(gr.Error, match="there is no recording yet"):
        tab.encode("en", None, 2)
    shown = tab.encode("zh", str(prompt_file), 2)
    assert shown[tab.costs]["value"]["headers"][0] == "\u6df1\u5ea6"
    assert [row[:3] for row in shown[tab.costs]["value"]["data"]] == [
        [1, 0.0625, 10],
        [2, 0.125, 19],
        [4, 0.25, 38],
        [6, 0.375, 57],
    ]
    assert soundfile.info(shown[tab.decoded]).frames == 28_800
    assert tab.decode(None, 2) == {tab.decoded: None}
    assert Path(tab.decode(shown[tab.coded], 1)[tab.decoded]).name == "depth-1.wav"
