"""What the controls of the page do, without a browser."""

import asyncio
import contextlib
import inspect
import io
import json
import random
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

gr = pytest.importorskip("gradio")

import app  # noqa: E402
from inference import Synthesizer  # noqa: E402
from inference.demo import EXAMPLE, EXAMPLES  # noqa: E402
from inference.demo_clone import CloneTab  # noqa: E402
from inference.demo_codec import CodecTab  # noqa: E402
from inference.service import Service  # noqa: E402
from inference.speed import Speed  # noqa: E402
from inference.studio import Session  # noqa: E402
from tokenizer.codes_file import read_codes  # noqa: E402

ROOT = Path(__file__).parent.parent
LABELS = json.loads((ROOT / "inference" / "demo_labels.json").read_text("utf-8"))
SPEED = Speed(base=0.01, per_codebook=0.005, frame_rate=12.5)
WORDS = "What it says."


@pytest.fixture(scope="module")
def service(bundle: Path) -> Iterator[Service]:
    with Service(Synthesizer.from_pretrained(bundle, device="cpu"), slots=2) as service:
        yield service


@pytest.fixture(scope="module", autouse=True)
def gradio_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        yield


@pytest.fixture(scope="module")
def tab(service: Service) -> CloneTab:
    return on_a_page(lambda: CloneTab(service, SPEED, hear_three_words, gr.Textbox()))[0]


def hear_three_words(audio: np.ndarray, sample_rate: int) -> str:
    """A recogniser that hears nothing where it is very quiet."""
    return "One two three." if np.abs(audio).max() > 0.01 else ""


def on_a_page(make: Callable[[], Any]) -> tuple[Any, set[str]]:
    """What is made, and the ids on its page.

    Outside a running event loop, Gradio would open one for every page and never close it.
    """

    async def build() -> tuple[Any, set[str]]:
        with gr.Blocks(analytics_enabled=False) as page:
            made = make()
        return made, {block.elem_id for block in page.blocks.values() if block.elem_id}

    return asyncio.run(build())


def spoken(tab: CloneTab, session: Session, **changed: Any) -> list[dict]:
    given = {
        "language": "en",
        "consent": True,
        "prompt": str(EXAMPLE),
        "words": WORDS,
        "opened": None,
        "text": "Good morning.",
        "depth": 3,
        "seed": 5,
        "locked": True,
    }
    return list(tab.speak(session, *(given | changed).values()))


def test_labels_are_the_same_in_every_language() -> None:
    assert LABELS["en"].keys() == LABELS["zh"].keys()
    assert all(all(words.values()) for words in LABELS.values())


def test_every_label_stands_somewhere() -> None:
    sources = [ROOT / "app.py", *(ROOT / "inference").glob("*.py")]
    text = "".join(path.read_text() for path in sources)
    assert [key for key in LABELS["en"] if f'"{key}"' not in text and f"'{key}'" not in text] == []


def test_gradio_takes_the_look() -> None:
    for function in (gr.Blocks.launch, gr.mount_gradio_app):
        assert app.LOOK.keys() <= inspect.signature(function).parameters.keys()


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


def test_a_new_clip_is_described(tab: CloneTab, prompt_file: Path) -> None:
    card = tab.voice
    shown = card.hear("en", str(prompt_file))
    assert shown[card.advice].startswith("1.2 s. It lasts 1.2 s: 3 s or more")
    assert shown[card.picture]["visible"] and card.prompt not in shown
    assert card.hear("en", None)[card.picture]["visible"] is False


def test_a_clip_that_was_trimmed_is_heard_anew(tab: CloneTab, prompt_file: Path, tmp_path: Path) -> None:
    """Gradio has no event for it: the clip is only another one than before."""
    card = tab.voice
    known = card.hear("en", str(prompt_file))[card.known]
    trimmed, copy = tmp_path / "trimmed.wav", tmp_path / "copy.wav"
    audio, rate = soundfile.read(prompt_file)
    soundfile.write(trimmed, audio[: len(audio) * 2 // 3], rate)
    shown = card.hear_trimmed("en", str(trimmed), known)
    assert shown[card.advice].startswith("0.8 s.") and shown[card.opened] is None
    assert shown[card.known] not in (None, known)
    copy.write_bytes(prompt_file.read_bytes())  # as Gradio keeps what it shows
    for path, before in ((str(copy), known), (None, known), (str(trimmed), None)):
        assert card.advice not in card.hear_trimmed("en", path, before)


def test_a_long_clip_is_cut_and_said_to_be(tab: CloneTab, voice: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(voice, 10), 24_000)
    shown = tab.voice.hear("en", str(path))
    assert soundfile.info(shown[tab.voice.prompt]).duration <= 8.0  # the longest prompt of this model
    assert "It was cut in a pause" in shown[tab.voice.advice]


def test_examples_bring_their_words(tab: CloneTab) -> None:
    """Real voices of several people, each good enough that nothing is to be said of it."""
    card = tab.voice
    assert len(EXAMPLES) == 5 and next(iter(EXAMPLES.values())) == EXAMPLE
    for name, path in EXAMPLES.items():
        shown = card.take_example("en", name)
        assert shown[card.prompt] == str(path) and shown[card.examples] == name
        assert shown[card.words] == path.with_suffix(".txt").read_text().strip() != ""
        assert re.fullmatch(r"[345]\.\d s\.", shown[card.advice])
        assert path == EXAMPLE or path.name in (path.parent / "README.md").read_text()
    assert card.take_example("en", None) == {}


def test_words_are_recognised_and_never_overwritten(service: Service, tab: CloneTab, tmp_path: Path) -> None:
    card, quiet = tab.voice, tmp_path / "quiet.wav"
    soundfile.write(quiet, np.random.default_rng(0).uniform(-0.005, 0.005, 48_000), 24_000)
    assert (
        card.recognise("en", str(EXAMPLE)) == card.recognise_new("en", str(EXAMPLE), " ") == "One two three."
    )
    for kept in (card.recognise_new("en", str(EXAMPLE), "Mine."), card.recognise_new("en", None, "")):
        assert kept == gr.skip()
    for path, told in ((str(quiet), "no words were recognised"), (None, "there is no voice yet")):
        with pytest.raises(gr.Error, match=told):
            card.recognise("en", path)
    without, ids = on_a_page(lambda: CloneTab(service, SPEED, None, gr.Textbox()))
    assert "no_recogniser" in ids and "recognise" not in ids and without.voice.recogniser is None


def test_a_voice_is_saved_and_opened_again(tab: CloneTab, prompt_file: Path) -> None:
    card = tab.voice
    with pytest.raises(gr.Error, match="tick the box"):
        card.save("en", False, str(prompt_file), WORDS, None)
    saved = card.save("en", True, str(prompt_file), WORDS, None)["value"]
    shown = card.open("en", saved)
    voice = tab.synthesizer.voice(prompt_file, WORDS)
    assert shown[card.words] == WORDS and torch.equal(shown[card.opened].codes, voice.codes)
    assert "1.2 s, from a voice file. Consent: Whoever saved" in shown[card.advice]
    session = Session()
    opened = {"prompt": shown[card.prompt], "opened": shown[card.opened]}
    spoken(tab, session, **opened)
    spoken(tab, session, prompt=str(prompt_file))
    assert np.array_equal(session.takes[0].take.audio, session.takes[1].take.audio)
    with pytest.raises(gr.Error, match="leave it out"):
        spoken(tab, session, **opened, words="Something else.")
    assert card.hear("en", shown[card.prompt])[card.opened] is None


def test_a_file_that_is_no_voice_is_told_without_its_folder(tab: CloneTab, tmp_path: Path) -> None:
    path = tmp_path / "friend.catvoice"
    path.write_bytes(b"no voice")
    with pytest.raises(gr.Error, match=r"friend\.catvoice: not a") as caught:
        tab.voice.open("en", str(path))
    assert str(tmp_path) not in caught.value.message
    path = tmp_path / "notes.wav"
    path.write_bytes(b"no audio")
    with pytest.raises(gr.Error, match=r"^.?notes\.wav: not readable"):
        tab.voice.hear("en", str(path))


@pytest.mark.parametrize("turns", [40, pytest.param(3000, marks=pytest.mark.slow)])
def test_mutated_files_are_taken_or_told(
    tab: CloneTab, service: Service, prompt_file: Path, tmp_path: Path, turns: int
) -> None:
    """Recordings and voice files of strangers, by each control: shown, or a line that is told."""
    codec, _ = on_a_page(lambda: CodecTab(service.synthesizer.tokenizer, gr.Textbox()))
    flac = tmp_path / "good.flac"
    soundfile.write(flac, soundfile.read(prompt_file)[0][:14_400], 24_000)
    voice = Path(tab.voice.save("en", True, str(prompt_file), WORDS, None)["value"])
    acts = [
        (flac, ".flac", lambda path: tab.voice.hear("en", path)),
        (flac, ".wav", lambda path: codec.encode("en", path, 2)),
        (voice, ".catvoice", lambda path: tab.voice.open("en", path)),
    ]
    chance = random.Random(turns)
    for turn in range(turns):
        good, suffix, act = acts[turn % 3]
        data = bytearray(good.read_bytes())
        for _ in range(chance.choice([1, 3, 20])):
            data[chance.randrange(chance.choice([60, len(data)]))] = chance.randrange(256)
        path = tmp_path / f"sent{suffix}"
        path.write_bytes(data[: chance.choice([len(data), chance.randrange(len(data))])])
        with contextlib.suppress(gr.Error):
            act(str(path))


def test_after_a_mistake_the_page_is_as_before(tab: CloneTab) -> None:
    updates = tab.speak(Session(), "en", False, str(EXAMPLE), WORDS, None, "Good morning.", 3, 5, True)
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


def test_a_silent_clip_is_told(tab: CloneTab, tmp_path: Path) -> None:
    path = tmp_path / "silent.wav"
    soundfile.write(path, np.zeros(48_000), 24_000)
    for act in (lambda: tab.voice.hear("en", str(path)), lambda: spoken(tab, Session(), prompt=str(path))):
        with pytest.raises(gr.Error, match="is silent"):
            act()


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


def test_a_seed_is_kept_or_drawn(tab: CloneTab) -> None:
    session = Session()
    for locked in (True, True, False):
        spoken(tab, session, locked=locked)
    takes = [kept.take for kept in session.takes]
    assert np.array_equal(takes[0].audio, takes[1].audio) and takes[2].seed != 5


def test_without_ffmpeg_the_page_says_so_and_plays_whole_takes(
    service: Service, tab: CloneTab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    without, ids = on_a_page(lambda: CloneTab(service, SPEED, None, gr.Textbox()))
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


def test_the_codec_alone(service: Service, prompt_file: Path) -> None:
    tab, _ = on_a_page(lambda: CodecTab(service.synthesizer.tokenizer, gr.Textbox()))
    with pytest.raises(gr.Error, match="there is no recording yet"):
        tab.encode("en", None, 2)
    shown = tab.encode("zh", str(prompt_file), 2)
    assert shown[tab.rates]["value"]["headers"][0] == "\u6df1\u5ea6"
    assert [row[:3] for row in shown[tab.rates]["value"]["data"]] == [
        [1, 0.0625, 10],
        [2, 0.125, 19],
        [4, 0.25, 38],
        [6, 0.375, 57],
    ]
    assert soundfile.info(shown[tab.decoded]).frames == 28_800
    assert tab.decode(None, 2) == {tab.decoded: None}
    assert Path(tab.decode(shown[tab.coded], 1)[tab.decoded]).name == "depth-1.wav"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--model", "no/such/model folder"], "no/such/model folder"),
        (["--slots", "0"], "slots=0"),
        (["--port", "70000"], "choose 1 to 65535"),
    ],
)
def test_mistakes_at_the_start_end_in_a_line(
    argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        app.main(["--port", "0", *argv])
    said = capsys.readouterr()
    assert caught.value.code == 2 and said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("app.py: ") and told in said.err


def test_a_port_in_use_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as caught:
        app.main(["--port", str(taken.getsockname()[1])])
    said = capsys.readouterr()
    assert caught.value.code == 2 and said.out == "" and said.err.count("\n") == 1
    assert "cannot be listened on" in said.err
