"""The `cat-tts` command on long texts, numbers, pauses and candidates."""

import _thread
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from inference import RetryPolicy, SynthesisOptions, Synthesizer
from tests.helpers.command import PROMPT_TEXT, TEXT, Command, refused

LONG_TEXT = "The old fox jumps. A lazy dog sleeps near the house.\n\nGood day!\n"


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
    """The file is the result; the last line counts how its segments stopped."""
    (tmp_path / "text.txt").write_text(LONG_TEXT, encoding="utf-8-sig")
    result = clone(text=None, text_file="text.txt", depth=2, seed=3, segment_seconds=2.5)
    assert (result.code, result.err, len(result.out.splitlines())) == (0, "", 1)
    assert "seed 3, " in result.out and result.out.endswith(", stopped: end decided 3\n")
    voice = synthesizer.load_voice(prompt_file, PROMPT_TEXT)
    expected = synthesizer.synthesize(
        LONG_TEXT, voice, SynthesisOptions(depth=2, seed=3, segment_seconds=2.5)
    )
    assert np.array_equal(samples(tmp_path / "out.wav"), pcm(expected.audio))
    assert f"{expected.seconds:.2f} s of audio" in result.out
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
    normalized = (tmp_path / "out.wav").read_bytes()
    assert clone(text=text, depth=1, no_normalize=True).err == ""
    assert (tmp_path / "out.wav").read_bytes() != normalized


def test_failed_attempts_are_reported(clone: Command, tmp_path: Path) -> None:
    """Where the likeliest decision is always to go on, no attempt comes to an end: the best is written."""
    result = clone(text="go. [pause 1s] go", depth=1, retries=1, decision_temperature=0)
    assert result.code == 3 and len(samples(tmp_path / "out.wav")) > 48_000
    assert result.out.endswith(", stopped: length limit 2, retries: 2\n")
    assert result.err == (
        "cat-tts: no attempt at segment 1, 2 succeeded, the best is written: "
        "try another seed, another prompt, or more --retries\n"
    )


def test_strict_writes_nothing(clone: Command, tmp_path: Path) -> None:
    result = clone(text="go", depth=1, retries=1, decision_temperature=0, strict=True)
    refused(result, r"no attempt of 2 succeeded \(stopped: limit\)", tmp_path)


def test_best_of(clone: Command, synthesizer: Synthesizer, prompt_file: Path, tmp_path: Path) -> None:
    assert clone(text="Dogs sleep.", best_of=3, seed=2).code == 0
    options = SynthesisOptions(policy=RetryPolicy(candidates=3), seed=2)
    voice = synthesizer.load_voice(prompt_file, PROMPT_TEXT)
    expected = synthesizer.synthesize("Dogs sleep.", voice, options)
    assert np.array_equal(samples(tmp_path / "out.wav"), pcm(expected.audio))
    written = (tmp_path / "out.wav").read_bytes()
    assert clone(text="Dogs sleep.", seed=2).code == 0
    assert (tmp_path / "out.wav").read_bytes() != written


def test_an_interruption_leaves_the_old_file_and_the_finished_segments(
    clone: Command, synthesizer: Synthesizer, prompt_file: Path, tmp_path: Path
) -> None:
    """Ctrl-C: one line, exit code 130. The same command then goes on, and it sounds as if nothing was."""
    (tmp_path / "out.wav").write_text("an older take")
    text, begun = "The old fox jumps over the river. " * 12, threading.Event()
    options = {"text": text, "depth": 6, "segment_seconds": 3, "cache": "cache"}
    watcher = threading.Thread(target=interrupt_when_there_is, args=(tmp_path / "cache", begun))
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
    segments = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert 1 <= len(segments) < 12 and {path.suffix for path in segments} == {".safetensors"}
    assert clone(**options).code == 0
    voice = synthesizer.load_voice(prompt_file, PROMPT_TEXT)
    expected = synthesizer.synthesize(text, voice, SynthesisOptions(depth=6, segment_seconds=3))
    assert np.array_equal(samples(tmp_path / "out.wav"), pcm(expected.audio))
    assert len(list((tmp_path / "cache").iterdir())) == 12
    assert all(path.stat().st_mtime_ns == time for path, time in segments.items())


def interrupt_when_there_is(folder: Path, over: threading.Event) -> None:
    """Ctrl-C, as soon as `folder` holds a finished segment."""
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
        ({"segment_seconds": 0}, r"segments of 0\.0 s"),
        ({"best_of": 0}, "candidates=0: give a whole number from 1 to 64"),
        ({"retries": -1}, "retries=-1: give a whole number from 0"),
    ],
)
def test_mistakes_that_need_no_model(
    clone: Command, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    (tmp_path / "latin.txt").write_bytes("Stra\u00dfe".encode("latin-1"))
    (tmp_path / "empty.txt").write_text(" \n")
    result = clone(**{"model": tmp_path / "no model", **options})
    refused(result, message, tmp_path, "empty.txt", "latin.txt")


def test_old_names_of_options_still_work(clone: Command, tmp_path: Path) -> None:
    options = {"text": "Take 7 foxes.", "depth": 1}
    old = clone(**options, piece_seconds=5, tune="None", no_normalise=True, work="segments")
    assert old.code == 0 and [line.partition(" is now ")[0] for line in old.err.splitlines()] == [
        "--piece-seconds",
        "--tune",
        "--no-normalise",
        "--work",
        "--adapt-steps None",
    ]
    written = (tmp_path / "out.wav").read_bytes()
    new = clone(**options, segment_seconds=5, no_adapt_decoder=True, no_normalize=True, cache="segments")
    assert (new.code, new.err) == (0, "") and (tmp_path / "out.wav").read_bytes() == written
