"""What the page does with a text, and with the takes of it, without a browser."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

gr = pytest.importorskip("gradio")

from inference.demo.clone_tab import CloneTab  # noqa: E402
from inference.demo.common import EXAMPLE  # noqa: E402
from inference.demo.session import Session  # noqa: E402
from inference.synthesis.adapted_services import VoiceServices  # noqa: E402
from inference.synthesis.service import Service  # noqa: E402
from inference.synthesis.speaker_adaptation import tuned  # noqa: E402
from tests.helpers.page import SPEED, WORDS, on_a_page, spoken  # noqa: E402
from tokenizer.codes.cat_file import read_codes  # noqa: E402

pytestmark = pytest.mark.usefixtures("gradio_files")


def test_length_of_a_text(tab: CloneTab) -> None:
    assert tab.count_of("en", "Good morning.") == "13 characters \u00b7 about 0.9 s"
    assert tab.count_of("zh", "Good morning.") == "13 \u4e2a\u5b57\u7b26 \u00b7 \u7ea6 0.9 \u79d2"
    assert tab.count_of("en", "Good [pause 1s] morning.").endswith(" \u00b7 2 pieces")
    assert tab.count_of("en", "Good [pause").startswith("11 characters")
    assert tab.count_of("en", "") == ""


def test_cost_of_a_depth(tab: CloneTab) -> None:
    assert tab.rate_of("en", 6) == "0.375 kbit/s \u00b7 predicted RTF 0.50"


def test_text_is_spelt_out_on_demand(tab: CloneTab) -> None:
    pytest.importorskip("wetext")
    assert tab.spell_out("It is 5 o'clock.")["value"] == "It is five o'clock."
    assert tab.spell_out("  ")["visible"] is False


def test_after_a_mistake_the_page_is_as_before(tab: CloneTab) -> None:
    updates = tab.speak(Session(), "en", False, str(EXAMPLE), WORDS, None, "Good morning.", 3, 5, True, False)
    assert next(updates)[tab.generate]["interactive"] is False
    last = next(updates)
    assert last[tab.generate]["interactive"] is True and last[tab.status] == "cpu · float32 · SDPA"
    with pytest.raises(gr.Error, match="tick the box"):
        next(updates)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"prompt": None}, "there is no voice yet"),
        ({"consent": False}, "tick the box"),
        ({"words": " "}, "the prompt text is empty"),
        ({"text": ""}, "the text is empty"),
        (
            {"text": "Good morning. " * 1500},
            "the text takes about 1512 s with its pauses, 900 s are",
        ),
        ({"text": "Good [pause 60s] morning. " * 16}, "the text takes about 9"),
        ({"text": "Good [pause] morning."}, "is no pause: write [pause 1.2s]"),
        ({"language": "zh", "consent": False}, "\u8bf7\u5148\u52fe\u9009"),
        ({"language": "no such", "consent": False}, "tick the box"),
        ({"text": "<...>"}, "the text &#x27;&lt;...&gt;&#x27; has no letter"),
    ],
)
def test_mistakes_are_told_in_a_line(tab: CloneTab, changed: dict, told: str) -> None:
    with pytest.raises(gr.Error) as caught:
        spoken(tab, Session(), **changed)
    assert told in caught.value.message and "\n" not in caught.value.message
    assert not caught.value.print_exception


def test_a_take_is_streamed_then_shown(tab: CloneTab) -> None:
    session = Session()
    first, *pieces, last = spoken(tab, session)
    assert first[tab.seed] == 5 and first[tab.stop]["interactive"]
    take = session.takes[0].take
    samples = [soundfile.read(io.BytesIO(piece[tab.live]), dtype="float32")[0] for piece in pieces]
    assert np.abs(np.concatenate(samples) - take.audio).max() <= 2**-15
    assert all("speaking, " in piece[tab.status] for piece in pieces)
    assert last[tab.status].startswith("cpu \u00b7 float32 \u00b7 SDPA \u00b7 ")
    assert last[tab.status].endswith(("cut at the length limit", "spoken to the end"))
    assert last[tab.takes.takes]["value"] == 1
    assert last[tab.takes.takes]["choices"][0][0].startswith("#1: depth 3, seed 5")
    assert [Path(path).suffix for path in last[tab.takes.files]] == [".wav", ".flac", ".cat", ".json"]
    about = json.loads(Path(last[tab.takes.files][-1]).read_text())
    assert (about["seed"], about["text"], about["device"]) == (5, "Good morning.", "cpu · float32 · SDPA")


def test_a_long_text_is_streamed_in_pieces_with_pauses(tab: CloneTab) -> None:
    """What was heard is the take; all that is done with takes works, and its side-car tells of each."""
    session = Session()
    _, *pieces, last = spoken(tab, session, text="Good morning. [pause 1s] It is late.", language="zh")
    (kept,) = session.takes
    samples = [soundfile.read(io.BytesIO(piece[tab.live]), dtype="float32")[0] for piece in pieces]
    heard = np.concatenate(samples)
    assert len(heard) == len(kept.take.audio) and np.abs(heard - kept.take.audio).max() <= 2**-15
    assert "\u7b2c 1 \u6bb5\uff0c\u5171 2 \u6bb5" in pieces[0][tab.status]
    assert "\u7b2c 2 \u6bb5" in pieces[-1][tab.status]
    assert "#1\uff1a\u6df1\u5ea6 3" in last[tab.takes.takes]["choices"][0][0]
    about = json.loads(Path(last[tab.takes.files][-1]).read_text())
    assert [piece["text"] for piece in about["pieces"]] == ["Good morning.", "It is late."]
    assert [piece["pause_seconds"] for piece in about["pieces"]] == [1.0, 0.0]
    assert read_codes(last[tab.takes.files][2]).depth == 3
    tab.takes.deepen("en", session, 1)
    mastered = session.takes[-1]
    assert [take.depth for take in mastered.pieces] == [6, 6] and mastered.mastered
    assert (mastered.pieces[1].codes[:, :3] == kept.pieces[1].codes).all()
    paths = tab.takes.both("en", session, 1, 1, 3)
    assert np.abs(soundfile.read(paths[1], dtype="float32")[0] - kept.take.audio).max() <= 2**-15


def test_a_tuned_model_speaks_and_masters_its_own_takes(tab: CloneTab) -> None:
    session = Session()
    _, tuning, *_, last = spoken(tab, session, tuning=True)
    assert tuning[tab.status].endswith("tuning the model to the voice")
    (kept,) = session.takes
    assert kept.tuned == 5 and kept.take.request is not None
    own = tuned(tab.synthesizer, kept.take.request.voice, 5)
    assert np.array_equal(kept.take.codes, own.start(kept.plan.requests[0]).collect().codes)
    assert json.loads(Path(last[tab.takes.files][-1]).read_text())["tuned_steps"] == 5
    tab.takes.deepen("en", session, 1)
    assert session.takes[-1].tuned == 5
    assert np.array_equal(session.takes[-1].take.codes, own.master(kept.take).codes)
    with pytest.raises(gr.Error, match="text"):
        spoken(tab, session, tuning=True, words=" ")


def test_a_seed_is_kept_or_drawn(tab: CloneTab) -> None:
    session = Session()
    for locked in (True, True, False):
        spoken(tab, session, locked=locked)
    takes = [kept.take for kept in session.takes]
    assert np.array_equal(takes[0].audio, takes[1].audio) and takes[2].seed != 5


def test_without_ffmpeg_the_page_says_so_and_plays_whole_takes(
    two_at_once: Service, tab: CloneTab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    without, ids = on_a_page(lambda: CloneTab(VoiceServices(two_at_once), SPEED, None, gr.Textbox()))
    assert "no_ffmpeg" in ids and not without.live.visible and tab.live.visible
    updates = spoken(without, Session())
    assert all(without.live not in update for update in updates)
    assert Path(updates[-1][without.takes.whole]).exists()


def test_takes_are_chosen_mastered_compared_and_forgotten(tab: CloneTab) -> None:
    session = Session()
    spoken(tab, session)
    with pytest.raises(gr.Error, match="no take is chosen"):
        tab.takes.choose("en", session, None)
    mastered = tab.takes.deepen("en", session, 1)
    assert mastered[tab.takes.takes]["value"] == 2 and "depth 6" in mastered[tab.takes.takes]["choices"][0][0]
    assert tab.takes.choose("en", session, 1)[tab.takes.takes]["value"] == 1
    paths = tab.takes.both("en", session, 1, 1, 3)
    assert [Path(path).name for path in paths] == ["depth-1.wav", "depth-3.wav"]
    samples = soundfile.read(paths[1], dtype="float32")[0]
    assert np.abs(samples - session.takes[0].take.audio).max() <= 2**-15
    assert tab.takes.forget_all(session)[tab.takes.result]["visible"] is False and session.takes == []
