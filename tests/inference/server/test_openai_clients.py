"""What a server's clients cannot do to each other, whatever they do."""

import copy
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import numpy as np
import openai
import pytest

from cat_tts import SamplingOptions
from inference import Synthesizer
from inference.server.app import create_server
from inference.server.limits import Limits
from inference.server.voice_store import VoiceFolder
from inference.synthesis.service import Service
from tests.helpers.serving import (
    FRAME_BYTES,
    LONG_TEXT,
    LONG_TEXT_FRAMES,
    PAYLOAD,
    SHORT_TEXT,
    SHORT_TEXT_FRAMES,
    RunningServer,
    error_of,
    running,
    until,
)


@pytest.fixture(scope="module")
def server(unending: Synthesizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(unending, tmp_path_factory.mktemp("voices")) as server:
        yield server


def test_concurrent_streams_are_the_same_as_alone(server: RunningServer) -> None:
    payloads = [{"seed": n, "depth": 1 + n % 6, "input": SHORT_TEXT * (1 + n % 3)} for n in range(8)]

    def stream(ask: dict[str, Any]) -> np.ndarray:
        body = {**PAYLOAD, **ask}
        extra = {name: body.pop(name) for name in ("seed", "depth")}
        speech = server.client.audio.speech.with_streaming_response
        with speech.create(**body, response_format="pcm", extra_body=extra) as answer:
            return np.frombuffer(b"".join(answer.iter_bytes()), "<i2").astype(int)

    with ThreadPoolExecutor(8) as pool:
        concurrent = list(pool.map(stream, payloads))
    sequential = [stream(ask) for ask in payloads]
    for first, second in zip(concurrent, sequential, strict=True):
        assert len(first) == len(second) and np.abs(first - second).max() <= 1
    assert len({audio.tobytes() for audio in sequential}) == 8


def test_a_client_that_leaves_frees_its_slot(server: RunningServer) -> None:
    before = server.metric("cat_tts_takes_total", stop_reason="cancelled")
    ask = {**PAYLOAD, "input": LONG_TEXT, "depth": 1, "response_format": "pcm"}
    with server.http() as http, http.stream("POST", "/v1/audio/speech", json=ask) as answer:
        chunks = answer.iter_raw()
        assert next(chunks) and server.service.engine.active == 1
    until(lambda: not server.service.engine.busy)
    until(lambda: server.metric("cat_tts_takes_total", stop_reason="cancelled") == before + 1)


def test_who_leaves_the_queue_is_not_served(unending: Synthesizer) -> None:
    with running(unending, slots=1, waiting=1) as server, server.http() as http:
        live = {**PAYLOAD, "input": LONG_TEXT, "depth": 1, "policy": "live"}
        with http.stream("POST", "/v1/audio/speech", json=live) as first:
            chunks = first.iter_raw()
            next(chunks)
            with socket.create_connection(server.address) as waiting:
                waiting.sendall(_raw_request(PAYLOAD))
                until(lambda: server.service.engine.queued == 1)
                for policy in ("live", "checked"):
                    refused = http.post("/v1/audio/speech", json={**PAYLOAD, "policy": policy})
                    assert refused.status_code == 429 and int(refused.headers["Retry-After"]) > 0
                    assert error_of(refused)["code"] == "queue_full"
                with pytest.raises(openai.RateLimitError):
                    server.client.audio.speech.create(**PAYLOAD)
            until(lambda: server.service.engine.queued == 0)
            assert server.service.engine.active == 1
        until(lambda: not server.service.engine.busy)
        assert len(server.speak()) == FRAME_BYTES * SHORT_TEXT_FRAMES


def test_a_slow_reader_stalls_nobody(server: RunningServer) -> None:
    sequential = server.speak(LONG_TEXT, depth=1)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(server.address)
        slow.sendall(_raw_request({**PAYLOAD, "input": LONG_TEXT, "depth": 1, "response_format": "pcm"}))
        assert slow.recv(1)
        assert len(server.speak()) == FRAME_BYTES * SHORT_TEXT_FRAMES
        until(lambda: not server.service.engine.busy)  # its take is made though nobody reads it
        data = b""
        while part := slow.recv(1 << 20):
            data += part
    audio_out, expected = (np.frombuffer(pcm, "<i2").astype(int) for pcm in (_unchunked(data), sequential))
    assert len(audio_out) == len(expected) and np.abs(audio_out - expected).max() <= 1


@pytest.mark.parametrize("policy", ["live", "checked"])
def test_who_takes_nothing_is_cut_off(unending: Synthesizer, policy: str) -> None:
    """Through the app itself: `send` never returns."""
    payload = {**PAYLOAD, "input": LONG_TEXT, "depth": 1, "policy": policy}
    sent: list[str] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])
        if message["type"] == "http.response.body":
            await anyio.sleep_forever()

    async def ask(app: Any) -> None:
        body = [{"type": "http.request", "body": json.dumps(payload).encode()}]

        async def receive() -> Any:
            return body.pop() if body else await anyio.sleep_forever()

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "asgi": {"spec_version": "2.3"}, "http_version": "1.1", "method": "POST"}
        scope |= {"path": "/v1/audio/speech", "query_string": b"", "headers": headers, "client": None}
        with anyio.fail_after(30):
            await app(scope, receive, send)

    with Service(unending, slots=1) as service:
        app = create_server(service, VoiceFolder(unending), limits=Limits(send_seconds=0.2))
        anyio.run(ask, app)
        assert sent == ["http.response.start", "http.response.body"]
        until(lambda: not service.engine.busy)


def test_a_take_that_runs_away_is_ended(unending: Synthesizer) -> None:
    """The model goes round in circles: it always takes the likeliest code, and never stops."""
    unending = copy.copy(unending)
    unending.sampling = SamplingOptions(temperature=0, decision_temperature=0)
    with running(unending, slots=1) as server:
        assert 37 <= len(server.speak(LONG_TEXT)) / FRAME_BYTES < LONG_TEXT_FRAMES
        assert server.metric("cat_tts_takes_total", stop_reason="repetition") == 1


def test_shutdown_lets_takes_finish(unending: Synthesizer) -> None:
    with running(unending) as server, server.http() as http:
        with http.stream("POST", "/v1/audio/speech", json={**PAYLOAD, "response_format": "pcm"}) as answer:
            chunks = answer.iter_raw()
            data = next(chunks)
            server.server.should_exit = True
            data += b"".join(chunks)
        assert len(data) == FRAME_BYTES * SHORT_TEXT_FRAMES


def _raw_request(body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(data)}\r\n"
    )
    return head.encode() + b"Content-Type: application/json\r\n\r\n" + data


def _unchunked(answer: bytes) -> bytes:
    whole, data = b"", answer.partition(b"\r\n\r\n")[2]
    while data:
        size, _, data = data.partition(b"\r\n")
        whole, data = whole + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return whole
