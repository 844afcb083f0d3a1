"""`cat-tts serve` as a process: it serves, and ends at a signal, also in the middle of a stream."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from cat_tts.generation.sampling import SAMPLING_FILE
from inference.cli.main import main
from tests.helpers.paths import ROOT
from tests.helpers.serving import LONG_TEXT, NEVER_STOP, SHORT_TEXT
from tokenizer.io.checkpoint import write_config

PAYLOAD = {"model": "cat-tts", "voice": "default", "response_format": "pcm"}


@pytest.fixture
def model(bundle: Path, tmp_path: Path) -> Path:
    """Never stops before the length limit."""
    shutil.copytree(bundle, tmp_path / "model")
    write_config(tmp_path / "model" / SAMPLING_FILE, NEVER_STOP)
    return tmp_path / "model"


@pytest.mark.parametrize("signal_", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_it_in_the_middle_of_a_stream(model: Path, signal_: signal.Signals) -> None:
    words = ["serve", "--port", "0", "--device", "cpu", "--model", str(model), "--grace-seconds", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CAT_TTS_API_KEY": "key", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "inference.cli.main", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout and process.stderr
        try:
            line = process.stdout.readline()
            url = line.removeprefix("cat-tts: ").strip()
            assert url.startswith("http://127.0.0.1:"), line + process.stderr.read()
            headers = {"Authorization": "Bearer key"}
            with httpx.Client(base_url=url, timeout=120, headers=headers) as http:
                assert http.get("/models", headers={"Authorization": ""}).status_code == 401
                assert len(http.post("/audio/speech", json={**PAYLOAD, "input": SHORT_TEXT}).content) > 1920
                with http.stream("POST", "/audio/speech", json={**PAYLOAD, "input": LONG_TEXT}) as answer:
                    chunks = answer.iter_raw()
                    assert next(chunks)
                    process.send_signal(signal_)
                    with pytest.raises(httpx.RemoteProtocolError):
                        list(chunks)
            assert process.wait(30) == 0
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (lambda port: ["--port", port], r"127\.0\.0\.1:\d+: cannot be listened on"),
        (lambda port: ["--port", "70000"], "port 70000: choose 1 to 65535"),
        (lambda port: ["--port", "0", "--host", "no.such.host.invalid"], "cannot be listened on"),
        (lambda port: ["--port", "0", "--model", "/nowhere"], "/nowhere: no such model folder"),
        (lambda port: ["--port", "0", "--grace-seconds", "-1"], "grace of -1 s"),
    ],
)
def test_what_cannot_be(
    words: Callable[[str], list[str]], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as exit:
        main(["serve", *words(str(taken.getsockname()[1]))])
    printed = capfd.readouterr()
    assert exit.value.code == 2 and printed.out == ""
    assert re.search(message, printed.err) and len(printed.err.splitlines()) == 1


def test_limits_are_options(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["serve", "--help"])
    printed = capfd.readouterr().out
    assert exit.value.code == 0
    for name in (
        "--slots",
        "--waiting",
        "--max-seconds",
        "--max-characters",
        "--rate-per-minute",
        "--voices",
    ):
        assert name in printed
