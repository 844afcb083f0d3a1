"""What the page does with a text, and with the takes of it, without a browser."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

gr = pytest.importorskip("gradio")

from inference import Synthesizer  # noqa: E402
from inference.demo.clone_tab import CloneTab  # noqa: E402
from inference.demo.common import EXAMPLE  # noqa: E402
from inference.demo.session import DemoSession  # noqa: E402
from inference.synthesis.adapted_services import VoiceServices  # noqa: E402
from inference.synthesis.service import Service  # noqa: E402
from inference.synthesis.speaker_adaptation import adapt_to_speaker  # noqa: E402
from tests.helpers.page import SPEED, TRANSCRIPT, on_a_page, spoken  # noqa: E402
from tokenizer.codes.cat_file import read_codes  # noqa: E402

pytestmark = pytest.mark.usefixtures("gradio_files")


def test_length_of_a_text(tab: CloneTab) -> None:
    assert tab.count_of("en", "Good morning.") == "13 characters \u00b7 about 0.9 s"
    assert tab.count_of("zh", "Good morning.") == "13 \u4e2a\u5b57\u7b26 \u00b7 \u7ea6 0.9 \u79d2"
    assert tab.count_of("en", "Good [pause 1s] morning.").endswith(" \u00b7 2 segments")
    assert tab.count_of("en", "Good [pause").startswith("11 characters")
    assert tab.count_of("en", "") == ""


def test_cost_of_a_depth(tab: CloneTab) -> None:
    assert tab.rate_of("en", 6) == "0.375 kbit/s \u00b7 predicted RTF 0.50"


def test_text_is_spelt_out_on_demand(tab: CloneTab) -> None:
    pytest.importorskip("wetext")
    assert tab.show_normalized("It is 5 o'clock.")["value"] == "It is five o'clock."
    assert tab.show_normalized("  ")["visible"] is False


def test_after_a_mistake_the_page_is_as_before(tab: CloneTab) -> None:
    updates = tab.speak(
        DemoSession(), "en", False, str(EXAMPLE), TRANSCRIPT, None, "Good morning.", 3, 5, True, False
    )
    assert next(updates)[tab.generate]["interactive"] is False
    last = next(updates)
    assert last[tab.generate]["interactive"] is True and last[tab.status] == "cpu · float32 · SDPA"
    with pytest.raises(gr.Error, match="tick the box"):
        next(updates)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prompt": None}, "there is no voice yet"),
        ({"consent": False}, "tick the box"),
        ({"transcript": " "}, "the prompt text is empty"),
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
def test_mistakes_are_reported_in_a_line(tab: CloneTab, changed: dict, message: str) -> None:
    with pytest.raises(gr.Error) as caught:
        spoken(tab, DemoSession(), **changed)
    assert message in caught.value.message and "\n" not in caught.value.message
    assert not caught.value.print_exception


def test_a_take_is_streamed_then_shown(tab: CloneTab) -> None:
    session = DemoSession()
    first, waiting, segment, last = spoken(tab, session)
    assert first[tab.seed] == 5 and first[tab.stop]["interactive"]
    assert waiting[tab.status].endswith("synthesizing the first segment")
    take = session.results[0].whole
    samples = soundfile.read(io.BytesIO(segment[tab.stream]), dtype="float32")[0]
    assert len(samples) == len(take.audio) and np.abs(samples - take.audio).max() <= 2**-15
    assert "speaking, " in segment[tab.status]
    assert last[tab.status].startswith("cpu \u00b7 float32 \u00b7 SDPA \u00b7 ")
    assert last[tab.status].endswith(("cut at the length limit", "spoken to the end"))
    assert last[tab.results.results]["value"] == 1
    assert last[tab.results.results]["choices"][0][0].startswith("#1: depth 3, seed 5")
    assert [Path(path).suffix for path in last[tab.results.files]] == [".wav", ".flac", ".cat", ".json"]
    about = json.loads(Path(last[tab.results.files][-1]).read_text())
    assert (about["seed"], about["text"], about["device"]) == (5, "Good morning.", "cpu · float32 · SDPA")
    assert (about["attempts"], about["acceptable"], about["intelligibility"]) == (1, True, None)


def test_a_take_that_is_not_understood_is_tried_again_and_said_to_be(
    tab: CloneTab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three attempts end, and nothing is recognized in them: the take is shown, not as a good one."""
    monkeypatch.setattr("inference.synthesis.attempts.intelligibility", lambda *_: -3.0)
    session = DemoSession()
    *_, last = spoken(tab, session)
    take = session.results[0].whole
    assert (take.attempts, take.acceptable, take.stop_reason) == (3, False, "end")
    assert last[tab.status].endswith("spoken to the end, but not all words were recognized")
    assert "not all words were recognized" in last[tab.results.results]["choices"][0][0]
    about = json.loads(Path(last[tab.results.files][-1]).read_text())
    assert (about["attempts"], about["acceptable"], about["intelligibility"]) == (3, False, -3.0)
    assert about["seed"] == 5 and last[tab.results.results]["choices"][0][0].startswith("#1: depth 3, seed 5")
    *_, last = spoken(tab, session, language="zh")
    assert last[tab.status].endswith("\u6709\u4e9b\u8bdd\u6ca1\u6709\u542c\u6e05")


def test_a_long_text_is_streamed_in_segments_with_pauses(tab: CloneTab) -> None:
    """The streamed audio is that of the take, which can be extended and compared; its JSON lists segments."""
    session = DemoSession()
    _, _, *segments, last = spoken(tab, session, text="Good morning. [pause 1s] It is late.", language="zh")
    (result,) = session.results
    samples = [soundfile.read(io.BytesIO(segment[tab.stream]), dtype="float32")[0] for segment in segments]
    streamed = np.concatenate(samples)
    assert len(streamed) == len(result.whole.audio) and np.abs(streamed - result.whole.audio).max() <= 2**-15
    assert "\u7b2c 1 \u6bb5\uff0c\u5171 2 \u6bb5" in segments[0][tab.status]
    assert "\u7b2c 2 \u6bb5" in segments[-1][tab.status]
    assert "#1\uff1a\u6df1\u5ea6 3" in last[tab.results.results]["choices"][0][0]
    about = json.loads(Path(last[tab.results.files][-1]).read_text())
    assert [segment["text"] for segment in about["segments"]] == ["Good morning.", "It is late."]
    assert about["pieces"] == about["segments"]
    assert [segment["pause_seconds"] for segment in about["segments"]] == [1.0, 0.0]
    assert read_codes(last[tab.results.files][2]).depth == 3
    tab.results.extend_selected("en", session, 1)
    extended = session.results[-1]
    assert [take.depth for take in extended.whole.segments] == [6, 6] and extended.extended
    assert (extended.whole.segments[1].codes[:, :3] == result.whole.segments[1].codes).all()
    paths = tab.results.compare_depths("en", session, 1, 1, 3)
    assert np.abs(soundfile.read(paths[1], dtype="float32")[0] - result.whole.audio).max() <= 2**-15


def test_an_adapted_model_speaks_and_extends_its_own_takes(tab: CloneTab) -> None:
    session = DemoSession()
    _, adapting, *_, last = spoken(tab, session, adapting=True)
    assert adapting[tab.status].endswith("tuning the model to the voice")
    (result,) = session.results
    assert result.plan.options.adapt_steps == 5 and result.whole.request is not None
    voice, options = result.whole.request.voice, replace(result.plan.options, adapt_steps=0)
    own = adapt_to_speaker(tab.models, voice, 5)
    assert isinstance(own, Synthesizer)
    assert np.array_equal(result.whole.codes, own.synthesize("Good morning.", voice, options).codes)
    assert json.loads(Path(last[tab.results.files][-1]).read_text())["adapt_steps"] == 5
    tab.results.extend_selected("en", session, 1)
    assert session.results[-1].plan.options.adapt_steps == 5
    assert np.array_equal(session.results[-1].whole.codes, own.extend_depth(result.whole).codes)
    with pytest.raises(gr.Error, match="text"):
        spoken(tab, session, adapting=True, transcript=" ")


def test_a_seed_is_kept_or_drawn(tab: CloneTab) -> None:
    session = DemoSession()
    for locked in (True, True, False):
        spoken(tab, session, locked=locked)
    takes = [result.whole for result in session.results]
    assert np.array_equal(takes[0].audio, takes[1].audio) and takes[2].seed != 5


def test_without_ffmpeg_the_page_says_so_and_plays_whole_takes(
    two_slot_service: Service, tab: CloneTab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    without, ids = on_a_page(lambda: CloneTab(VoiceServices(two_slot_service), SPEED, None, gr.Textbox()))
    assert "no_ffmpeg" in ids and not without.stream.visible and tab.stream.visible
    updates = spoken(without, DemoSession())
    assert all(without.stream not in update for update in updates)
    assert Path(updates[-1][without.results.whole]).exists()


def test_takes_are_selected_extended_compared_and_deleted(tab: CloneTab) -> None:
    session = DemoSession()
    spoken(tab, session)
    with pytest.raises(gr.Error, match="no take is chosen"):
        tab.results.select("en", session, None)
    extended = tab.results.extend_selected("en", session, 1)
    assert (
        extended[tab.results.results]["value"] == 2
        and "depth 6" in extended[tab.results.results]["choices"][0][0]
    )
    assert tab.results.select("en", session, 1)[tab.results.results]["value"] == 1
    paths = tab.results.compare_depths("en", session, 1, 1, 3)
    assert [Path(path).name for path in paths] == ["depth-1.wav", "depth-3.wav"]
    samples = soundfile.read(paths[1], dtype="float32")[0]
    assert np.abs(samples - session.results[0].whole.audio).max() <= 2**-15
    assert tab.results.forget_all(session)[tab.results.result]["visible"] is False and session.results == []
