"""A server on the loopback interface, and what clients of it need."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import openai
import pytest
import uvicorn
from fastapi import FastAPI
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families

from cat_tts import SamplingOptions
from inference import SynthesisResult, Synthesizer
from inference.engine.engine import Engine
from inference.server.app import create_server
from inference.server.audio_encoder import int16
from inference.server.voice_store import VoiceFolder
from inference.synthesis.service import Service

NEVER_STOP = SamplingOptions(temperature=0.8, decision_temperature=0)
"""Of equal odds the arg-max takes the first, to continue: every take reaches the length limit of its text."""
SHORT_TEXT = "Hi."
SHORT_TEXT_FRAMES = 31
LONG_TEXT = (
    "The lazy fox sleeps under the old tree, and the bird sings to the river, and a cat runs near a tree."
)
LONG_TEXT_FRAMES = 25 + 180
"""Frames of a text of one segment."""
FRAME_BYTES = 2 * 1920
PAYLOAD: dict[str, Any] = {"model": "cat-tts", "voice": "default", "input": SHORT_TEXT}


@dataclass
class RunningServer:
    """A server that answers."""

    url: str
    service: Service
    server: uvicorn.Server
    client: OpenAI

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def http(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120, **options)

    def speak(self, text: str = SHORT_TEXT, **options: Any) -> bytes:
        """All of an answer, pcm by default."""
        body = {"model": "cat-tts", "voice": "default", "response_format": "pcm", "input": text, **options}
        with self.http() as http:
            answer = http.post("/v1/audio/speech", json=body)
        assert answer.status_code == 200, answer.text
        return answer.content

    def metric(self, name: str, **labels: str) -> float:
        with self.http() as http:
            families = list(text_string_to_metric_families(http.get("/metrics").text))
        samples = [sample for family in families for sample in family.samples]
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())


@contextmanager
def running(synthesizer: Synthesizer, folder: Path | None = None, **options: Any) -> Iterator[RunningServer]:
    """`options` of the service and of the server."""
    of_service = {name: options.pop(name) for name in ("slots", "waiting", "patience") if name in options}
    with Service(synthesizer, **of_service) as service:
        app = create_server(service, VoiceFolder(synthesizer, folder), **options)
        with answering(app) as (url, server), openai_client(url) as client:
            yield RunningServer(url, service, server, client)


@contextmanager
def answering(app: FastAPI) -> Iterator[tuple[str, uvicorn.Server]]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", server
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


def openai_client(url: str, api_key: str = "none") -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key=api_key, max_retries=0, timeout=120)


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for what must come, however busy the machine is."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def slow_down(engine: Engine, patch: pytest.MonkeyPatch, seconds: float = 0.02) -> None:
    """Let every frame take so long, at least."""
    step = engine.step

    def slow_step() -> None:
        time.sleep(seconds)
        step()

    patch.setattr(engine, "step", slow_step)


def decoded(data: bytes) -> np.ndarray:
    """The int16 samples of any format but pcm, at the rate that its decoder gives."""
    with av.open(io.BytesIO(data), "r") as file:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=24_000)
        frames = [out for frame in file.decode(audio=0) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def as_int16(speech: bytes | SynthesisResult) -> np.ndarray:
    """The samples of pcm, or those that the pcm of a result has, as integers that can be subtracted."""
    pcm = speech if isinstance(speech, bytes) else int16(speech.audio).tobytes()
    return np.frombuffer(pcm, "<i2").astype(int)


def error_of(answer: httpx.Response | openai.APIStatusError) -> dict[str, Any]:
    """The error of an answer, whose shape is as it must be."""
    response = answer.response if isinstance(answer, openai.APIStatusError) else answer
    body = response.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}, body
    assert body["error"]["message"] and "Traceback" not in response.text
    return body["error"]
