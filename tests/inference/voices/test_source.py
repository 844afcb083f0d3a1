"""A voice may come from anywhere: it is read once, or refused in one line."""

import io
import math
import os
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from inference import Synthesizer, Voice
from inference.voices import source
from inference.voices.catvoice_file import saved_voice, write_voice
from inference.voices.catvoice_format import SavedVoice
from inference.voices.prompt_audio import PromptRecording
from inference.voices.source import read_source, transcript
from tests.helpers.answering import answering
from tests.helpers.command import Command

PROMPT_TEXT, SAMPLES = "What the recording says.", np.full(24_000, 0.1, np.float32)


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture(scope="module")
def voice_file(synthesizer: Synthesizer, prompt_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("voices") / "ann.CATVOICE"
    write_voice(path, saved_voice(synthesizer.voices, synthesizer.load_voice(prompt_file, PROMPT_TEXT)))
    return path


@pytest.fixture(scope="module")
def address(prompt_file: Path) -> Iterator[str]:
    """The address of the prompt's folder on a server of this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(prompt_file.parent)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_kind_of_source_is_the_same_voice(
    synthesizer: Synthesizer, prompt_file: Path, address: str
) -> None:
    data, (samples, rate) = prompt_file.read_bytes(), soundfile.read(prompt_file, dtype="float32")
    expected = synthesizer.load_voice(prompt_file, PROMPT_TEXT)
    with open(prompt_file, "rb") as opened:
        sources: list[Any] = [
            str(prompt_file),
            data,
            bytearray(data),
            io.BytesIO(data),
            opened,
            (samples, rate),
            (samples.astype(np.float64), float(rate)),
            f"{address}/{prompt_file.name}",
            read_source(prompt_file),
        ]
        for each in sources:
            voice = synthesizer.load_voice(each, PROMPT_TEXT)
            assert torch.equal(voice.codes, expected.codes) and voice.text == PROMPT_TEXT


def test_voice_files(synthesizer: Synthesizer, voice_file: Path, prompt_file: Path) -> None:
    expected = synthesizer.load_voice(prompt_file, PROMPT_TEXT)
    for each in (voice_file, str(voice_file), voice_file.read_bytes(), read_source(voice_file)):
        voice = synthesizer.load_voice(each)
        assert torch.equal(voice.codes, expected.codes) and voice.text == PROMPT_TEXT


def test_transcripts(synthesizer: Synthesizer, voice_file: Path, prompt_file: Path) -> None:
    saved, recording = read_source(voice_file), read_source(prompt_file)
    assert isinstance(saved, SavedVoice) and isinstance(recording, PromptRecording)
    assert transcript(saved, "") == transcript(saved, PROMPT_TEXT) == PROMPT_TEXT
    assert transcript(recording, "words") == "words"
    assert transcript(Voice(codes=torch.zeros(1, 6), text="mine"), "") == "mine"
    with pytest.raises(ValueError, match=r"this voice says 'What the recording says.', not 'other'"):
        transcript(saved, "other")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (None, "prompt: None is no voice; give a path, bytes, an open file or"),
        (5, "prompt: 5 is no voice"),
        ([0.1, 0.2], r"prompt: \[0.1, 0.2\] is no voice"),
        (np.zeros((2, 2)), r"prompt: array\(\[\[0., 0.\], \[0., 0.\]\]\) is no voice"),
        (memoryview(b"RIFF"), "prompt: <memory at"),
        ((SAMPLES, math.inf), "prompt: a rate of inf Hz; give the samples per second, 1000 to 1000000"),
        ((SAMPLES, math.nan), "prompt: a rate of nan Hz"),
        ((SAMPLES, 0), "prompt: a rate of 0 Hz"),
        ((SAMPLES, -24_000), "prompt: a rate of -24000 Hz"),
        ((SAMPLES, 10**400), "prompt: a rate of 1000"),
        ((SAMPLES, True), "prompt: a rate of True Hz"),
        ((SAMPLES, "24000"), "prompt: a rate of 24000 Hz; give"),
        ((SAMPLES, np.eye(2)), r"prompt: a rate of \[\[1. 0.\] \[0. 1.\]\] Hz"),
        ((24_000, SAMPLES), r"prompt: int64 samples of shape \(\)"),
        ((np.zeros((2, 24_000)), 24_000), r"prompt: float64 samples of shape \(2, 24000\); give mono floats"),
        ((np.zeros(24_000, np.int16), 24_000), r"prompt: int16 samples of shape \(24000,\)"),
        (([[0.1], [0.1, 0.2]], 24_000), "prompt: its samples cannot be read"),
        ((torch.zeros(9, requires_grad=True), 24_000), "prompt: its samples cannot be read"),
        ((None, None), "prompt: object samples"),
        ((np.zeros(3),), "prompt: a tuple of 1 things; give samples and their rate"),
        (("a.wav", "b.wav"), "prompt: <U5 samples of shape"),
        (b"", "prompt: not readable as audio"),
        (b"RIFF and nothing else", "prompt: not readable as audio"),
        (b"\x89CATV\r\n and nothing else", "prompt: "),
        (io.StringIO("text"), "prompt: the file is open as text; open it with mode 'rb'"),
        (SimpleNamespace(read=lambda: b""), "prompt: cannot be read .*; open the file with mode 'rb'"),
        ("", ": is a folder"),
        ("words " * 99, "words .*: cannot be read"),
        ("nowhere.wav", "nowhere.wav: no such file"),
        ("nowhere.catvoice", "nowhere.catvoice: no such file"),
        ("http://127.0.0.1:9/a.wav", "http://127.0.0.1:9/a.wav: cannot be downloaded .*check the address"),
        ("http://", "http://: cannot be downloaded"),
        ("http://[::1", "http://.*: cannot be downloaded"),
        ("HTTP://a b/c.wav", "HTTP://a b/c.wav: cannot be downloaded"),
        ("file:///etc/hostname", "file:///etc/hostname: no such file"),
        ("ftp://localhost/a.wav", "ftp://localhost/a.wav: no such file"),
    ],
)
def test_what_is_no_voice(synthesizer: Synthesizer, wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as refusal:
        synthesizer.load_voice(wrong, PROMPT_TEXT)
    assert "\n" not in str(refusal.value)


def test_files_that_cannot_be_read(synthesizer: Synthesizer, prompt_file: Path, tmp_path: Path) -> None:
    """A pipe into which nobody writes is not waited for."""
    for name in ("pipe.wav", "pipe.catvoice"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name}: is no file"):
            synthesizer.load_voice(tmp_path / name, PROMPT_TEXT)
    with pytest.raises(ValueError, match=r"is a folder; name one audio file in it"):
        synthesizer.load_voice(tmp_path, PROMPT_TEXT)
    with open(prompt_file, "rb") as closed:
        pass
    with open(tmp_path / "new.wav", "wb") as written, open(prompt_file, encoding="latin-1") as text:
        for opened, reason in (
            (closed, "cannot be read"),
            (written, "cannot be read"),
            (text, "open as text"),
        ):
            with pytest.raises(ValueError, match=f"^prompt: .*{reason}.*; open .* with mode 'rb'$"):
                synthesizer.load_voice(opened, PROMPT_TEXT)  # pyright: ignore[reportArgumentType]


def test_servers_that_misbehave(prompt_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other exception gets through, half a recording is not taken for all of it, and nothing hangs."""
    monkeypatch.setattr(source, "TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(source, "DOWNLOAD_SECONDS", 0.5)
    data = prompt_file.read_bytes()
    head, chunked = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data), b"HTTP/1.1 200 OK\r\n"
    chunked += b"Transfer-Encoding: chunked\r\n\r\n"
    with answering() as serve:
        recording = read_source(serve(head, data))
        assert isinstance(recording, PromptRecording) and len(recording.samples) == 28_800
        recording = read_source(serve(b"HTTP/1.0 200 OK\r\n\r\n", data))
        assert isinstance(recording, PromptRecording) and len(recording.samples) == 28_800
        mistakes = (
            ("timed out", serve(waits=True)),
            ("timed out", serve(head, data[:-10], waits=True)),
            (r"more than 0\.5 s", serve(head, *[b"RIFF"] * 100, every=0.1)),
            ("the answer is cut off", serve(head, data[:-10])),
            ("IncompleteRead", serve(chunked, b"%x\r\n" % len(data), data[:-10])),
            ("SSH-2", serve(b"SSH-2.0-OpenSSH_9.9\r\n")),
            (f"404: {'no ' * 20}", serve(b"HTTP/1.1 404 " + b"no " * 999 + b"\r\n\r\n")),
            ("closed connection", serve()),
        )
        for reason, address in mistakes:
            expected = rf"^{re.escape(address)}: cannot be downloaded \(.*{reason}.*\); check the address$"
            with pytest.raises(ValueError, match=expected):
                read_source(address)


def test_addresses_without_a_voice(synthesizer: Synthesizer, address: str) -> None:
    with pytest.raises(ValueError, match=r"none\.wav: cannot be downloaded .*404"):
        synthesizer.load_voice(f"{address}/none.wav")
    with pytest.raises(ValueError, match="not readable as audio"):
        synthesizer.load_voice(f"{address}/")  # a page


def test_too_much_is_not_read(
    synthesizer: Synthesizer, prompt_file: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_BYTES", 1000)
    data = prompt_file.read_bytes()
    for each in (data, f"{address}/{prompt_file.name}", io.BytesIO(data)):
        with pytest.raises(ValueError, match="more than 0 MiB; give the few seconds that hold the voice"):
            synthesizer.load_voice(each, PROMPT_TEXT)
    monkeypatch.undo()
    monkeypatch.setattr(source, "MAX_SECONDS", 0.5)
    with pytest.raises(ValueError, match=r"prompt: longer than 0\.5 s"):
        synthesizer.load_voice(data, PROMPT_TEXT)


def test_a_file_is_read_once(
    synthesizer: Synthesizer,
    voice_file: Path,
    prompt_file: Path,
    clone: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the door to the audio, in the command too; and what it has to fit is computed once."""
    opened: list[str] = []
    original = open

    def counted(path: Any, *arguments: Any, **options: Any) -> Any:
        opened.append(str(path))
        return original(path, *arguments, **options)

    monkeypatch.setattr("builtins.open", counted)
    for path in (prompt_file, voice_file):
        opened.clear()
        synthesizer.clone("Dogs sleep.", path, PROMPT_TEXT, depth=1, max_seconds=0.2)
        assert opened.count(str(path)) == 1
        opened.clear()
        assert clone(path, max_seconds=0.2).code == 0
        assert opened.count(str(path)) == 1
    calls: list[object] = []
    monkeypatch.setattr("inference.voices.voice.fingerprint", lambda model: calls.append(model) or b"")
    assert synthesizer.voices.fingerprint == synthesizer.voices.fingerprint != b"" and not calls
