"""`python app.py` as a process: the page and the API at one address, until a signal ends them."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from cat_tts.generation.sampling import SAMPLING_FILE
from tests.helpers.paths import ROOT
from tests.helpers.serving import LONG_TEXT, NEVER_STOP, error_of
from tokenizer.io.checkpoint import write_config

pytest.importorskip("gradio")


@pytest.fixture
def model(bundle: Path, tmp_path: Path) -> Path:
    """Never stops before the length limit."""
    shutil.copytree(bundle, tmp_path / "model")
    write_config(tmp_path / "model" / SAMPLING_FILE, NEVER_STOP)
    return tmp_path / "model"


def press_generate(http: httpx.Client, prompt: Path) -> Iterator[str]:
    """What the server tells a page about its take, as it comes."""
    config = http.get("/config").json()
    ids = {part["props"].get("elem_id"): part["id"] for part in config["components"]}
    press = [ids["generate"], "click"]
    speak = next(one["id"] for one in config["dependencies"] if press in one["targets"])
    with prompt.open("rb") as file:
        path = http.post("/gradio_api/upload", files={"files": file}).json()[0]
    clip = {"path": path, "meta": {"_type": "gradio.FileData"}}
    inputs: list[Any] = [None, "en", True, clip, "What it says.", None, LONG_TEXT, 3, 5, True, False]
    event = {"data": inputs, "fn_index": speak, "session_hash": "page"}
    http.post("/gradio_api/queue/join", json=event).raise_for_status()
    with http.stream("GET", "/gradio_api/queue/data", params={"session_hash": "page"}) as news:
        yield from news.iter_lines()


def test_one_process_has_the_page_and_the_api_and_ends_in_the_middle_of_takes(
    model: Path, prompt_file: Path, tmp_path: Path
) -> None:
    transcript = ["app.py", "--port", "0", "--device", "cpu", "--model", str(model)]
    changed = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "GRADIO_TEMP_DIR": str(tmp_path / "gradio"),
        "CAT_TTS_API_KEY": "key",
    }
    with subprocess.Popen(
        [sys.executable, *transcript],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **changed},
    ) as process:
        assert process.stdout and process.stderr
        try:
            line = process.stdout.readline()
            url = line.removeprefix("The page: ").strip()
            assert url.startswith("http://127.0.0.1:"), line + process.stderr.read()
            with httpx.Client(base_url=url, timeout=120) as http:
                page = http.get("/")
                assert page.status_code == 200 and "CAT-TTS" in page.text
                assert http.get("/v1/models").status_code == 401
                http.headers["Authorization"] = "Bearer key"
                assert http.get("/v1/models").json()["data"][0]["id"] == "cat-tts"
                nowhere, wrong = http.get("/v1/nothing"), http.get("/v1/audio/speech")
                assert (nowhere.status_code, error_of(nowhere)["code"]) == (404, "not_found")
                assert (wrong.status_code, error_of(wrong)["code"]) == (405, "method_not_allowed")
                ask = {"model": "cat-tts", "voice": "default", "response_format": "pcm", "input": LONG_TEXT}
                spoken = press_generate(http, prompt_file)
                while "speaking, " not in next(spoken):
                    pass
                with http.stream("POST", "/v1/audio/speech", json=ask) as answer:
                    chunks = answer.iter_raw()
                    assert next(chunks) and process.poll() is None
                    process.send_signal(signal.SIGTERM)
                    with suppress(httpx.RemoteProtocolError):  # unless the grace was enough
                        list(chunks)
                with suppress(httpx.RemoteProtocolError, StopIteration):
                    while "process_completed" not in next(spoken):
                        pass
            assert process.wait(30) == 0
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
