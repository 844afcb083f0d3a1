"""The `cat-tts` command on long texts, numbers, pauses and drafts."""

import _thread
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from inference import Synthesizer
from inference.longform.synthesize import Delivery, read
from tests.helpers.command import TEXT, WORDS, Command, refused

LONG = "The old fox jumps. A lazy dog sleeps near the house.\n\nGood day!\n"


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


def samples(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="int16")[0]


def pcm(audio: np.ndarray) -> np.ndarray:
    return (audio.astype(np.float64) * 32_768).round().clip(-32_768, 32_767)


def test_a_long_text_of_a_file(
    clone: Command, synthesizer: Synthesizer, prompt_file: Path, tmp_path: Path
) -> None:
    """The file is the reading; the last line counts how its pieces stopped."""
    (tmp_path / "text.txt").write_text(LONG, encoding="utf-8-sig")
    result = clone(text=None, text_file="text.txt", depth=2, seed=3, piece_seconds=2.5)
    assert (result.code, result.err, len(result.out.splitlines())) == (0, "", 1)
    assert "seed 3, " in result.out and result.out.endswith(", stopped: end decided 3\n")
    reading = read(synthesizer, LONG, prompt_file, WORDS, Delivery(depth=2, seed=3, piece_seconds=2.5))
    assert np.array_equal(samples(tmp_path / "out.wav"), pcm(reading.audio))
    assert f"{reading.seconds:.2f} s of audio" in result.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.wav", "text.txt"]


def test_pauses(clone: Command, tmp_path: Path) -> None:
    assert clone(text="Stop! [pause 2s] Go.", depth=1).code == 0
    quiet = np.convolve(samples(tmp_path / "out.wav") == 0, np.ones(48_000), "valid")
    assert quiet.max() == 48_000


@pytest.mark.parametrize(
    ("text", "spoken"),
    [("Take 7 foxes.", "spoken as: Take seven foxes.\n"), (f"{TEXT}\n 5 dogs", "spoken as: Five dogs\n")],
)
def test_numbers_are_spelt_out_and_shown(clone: Command, tmp_path: Path, text: str, spoken: str) -> None:
    result = clone(text=text, depth=1)
    assert (result.code, result.err) == (0, spoken)
    normalised = (tmp_path / "out.wav").read_bytes()
    assert clone(text=text, depth=1, no_normalise=True).err == ""
    assert (tmp_path / "out.wav").read_bytes() != normalised


def test_retries_are_told(clone: Command) -> None:
    """Where the likeliest decision is always to go on, no attempt comes to an end."""
    result = clone(text="go", depth=1, retries=1, decision_temperature=0)
    assert result.out.endswith(", stopped: length limit, retries: 1\n")


def test_best_of(clone: Command, synthesizer: Synthesizer, prompt_file: Path, tmp_path: Path) -> None:
    assert clone(text="Dogs sleep.", best_of=3, seed=2).code == 0
    reading = read(synthesizer, "Dogs sleep.", prompt_file, WORDS, Delivery(drafts=3, seed=2))
    assert np.array_equal(samples(tmp_path / "out.wav"), pcm(reading.audio))
    written = (tmp_path / "out.wav").read_bytes()
    assert clone(text="Dogs sleep.", seed=2).code == 0
    assert (tmp_path / "out.wav").read_bytes() != written


def test_an_interruption_leaves_the_old_file_and_the_finished_pieces(
    clone: Command, synthesizer: Synthesizer, prompt_file: Path, tmp_path: Path
) -> None:
    """Ctrl-C: one line, exit code 130. The same command then goes on, and it sounds as if nothing was."""
    (tmp_path / "out.wav").write_text("an older take")
    text, begun = "The old fox jumps over the river. " * 12, threading.Event()
    options = {"text": text, "depth": 6, "piece_seconds": 3, "work": "work"}
    watcher = threading.Thread(target=interrupt_when_there_is, args=(tmp_path / "work", begun))
    # Programs started in the background of a shell ignore Ctrl-C, and so may the one that runs the tests.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    watcher.start()
    result = clone(**options)
    begun.set()
    watcher.join()
    signal.signal(signal.SIGINT, before)
    assert (result.code, result.out) == (130, "")
    assert result.err == "cat-tts: interrupted; nothing was written\n"
    assert (tmp_path / "out.wav").read_text() == "an older take"
    pieces = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()}
    assert 1 <= len(pieces) < 12 and {path.suffix for path in pieces} == {".safetensors"}
    assert clone(**options).code == 0
    reading = read(synthesizer, text, prompt_file, WORDS, Delivery(depth=6, piece_seconds=3))
    assert np.array_equal(samples(tmp_path / "out.wav"), pcm(reading.audio))
    assert len(list((tmp_path / "work").iterdir())) == 12
    assert all(path.stat().st_mtime_ns == time for path, time in pieces.items())


def interrupt_when_there_is(folder: Path, over: threading.Event) -> None:
    """Ctrl-C, as soon as `folder` holds a finished piece."""
    while not over.wait(0.001):
        if folder.is_dir() and any(path.suffix == ".safetensors" for path in folder.iterdir()):
            _thread.interrupt_main()
            return


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "Stop. [pause 1] Go."}, r"'\[pause 1\]' is no pause: write \[pause 1\.2s\]"),
        ({"text": "[pause 1s] ..."}, "the text .* has no letter or digit"),
        ({"text_file": "gone.txt"}, "--text and --text-file are given: choose one of them"),
        ({"text": None, "text_file": "gone.txt"}, r"gone\.txt: cannot be read \(No such file or directory\)"),
        ({"text": None, "text_file": "latin.txt"}, r"latin\.txt: not UTF-8 text; save it as such"),
        ({"text": None, "text_file": "empty.txt"}, "the text is empty"),
        ({"text": None}, "the text is empty: write what shall be spoken \\(--text or --text-file\\)"),
        ({"piece_seconds": 0}, r"pieces of 0\.0 s"),
        ({"best_of": 0}, "the best of 0 drafts: ask for at least 1"),
        ({"retries": -1}, "retries=-1: give 0"),
    ],
)
def test_mistakes_that_need_no_model(
    clone: Command, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    (tmp_path / "latin.txt").write_bytes("Stra\u00dfe".encode("latin-1"))
    (tmp_path / "empty.txt").write_text(" \n")
    result = clone(**{"model": tmp_path / "no model", **options})
    refused(result, message, tmp_path, "empty.txt", "latin.txt")
