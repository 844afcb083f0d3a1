"""What a server refuses, and how it says so: 4xx, one shape, never a traceback."""

import json
import random
import socket
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI

from inference import Synthesizer
from inference.server.app import create_server
from inference.server.limits import Limits
from inference.server.voice_store import VoiceFolder
from inference.synthesis.service import Service
from tests.helpers.serving import PAYLOAD, RunningServer, answering, error_of, openai_client, running

SPEECH = "/v1/audio/speech"


@pytest.fixture(scope="module")
def server(unending: Synthesizer) -> Iterator[RunningServer]:
    limits = Limits(
        max_body_bytes=50_000, max_upload_bytes=100_000, max_characters=1000, max_answer_seconds=500
    )
    with running(unending, slots=2, limits=limits) as server:
        yield server


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx.Client]:
    with server.http() as http:
        yield http


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"voice": "nobody"}, 404, "voice_not_found", "voice"),
        ({"voice": "../default"}, 404, "voice_not_found", "voice"),
        ({"voice": {"id": "nobody"}}, 404, "voice_not_found", "voice"),
        ({"voice": {"name": "default"}}, 400, "invalid_value", "voice"),
        ({"voice": None}, 400, "invalid_value", "voice"),
        ({"voice": 7}, 400, "invalid_value", "voice"),
        ({"model": "tts-1"}, 404, "model_not_found", "model"),
        ({"input": ""}, 400, "invalid_value", None),
        ({"input": "?!"}, 400, "invalid_value", None),
        ({"input": ["Hi."]}, 400, "invalid_value", "input"),
        ({"input": "a" * 1001}, 400, "string_above_max_length", "input"),
        ({"input": "a\ud800"}, 400, "invalid_value", "input"),
        ({"input": "a [pause 60s] b " * 9}, 400, "string_above_max_length", "input"),
        ({"input": "a [pause] b"}, 400, "invalid_value", None),
        ({"response_format": "exe"}, 400, "invalid_value", "response_format"),
        ({"stream_format": "video"}, 400, "invalid_value", "stream_format"),
        ({"speed": 1.5}, 400, "unsupported_value", "speed"),
        ({"speed": "1"}, 400, "invalid_value", "speed"),
        ({"speed": float("nan")}, 400, "unsupported_value", "speed"),
        ({"instructions": "Whisper."}, 400, "unsupported_parameter", "instructions"),
        ({"depth": 0}, 400, "invalid_value", None),
        ({"depth": 7}, 400, "invalid_value", None),
        ({"depth": True}, 400, "invalid_value", "depth"),
        ({"depth": 2.5}, 400, "invalid_value", "depth"),
        ({"seed": 2**63}, 400, "invalid_value", None),
        ({"seed": 10**4000}, 400, "invalid_value", None),
        ({"policy": "careful"}, 400, "invalid_value", "policy"),
        ({"policy": True}, 400, "invalid_value", "policy"),
        ({"strict": "yes"}, 400, "invalid_value", "strict"),
        ({"strict": 1}, 400, "invalid_value", "strict"),
        ({"strict": None}, 400, "invalid_value", "strict"),
        ({"colour": "red"}, 400, "invalid_value", "colour"),
    ],
)
def test_wrong_values(
    http: httpx.Client, change: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    answer = http.post(SPEECH, content=json.dumps({**PAYLOAD, **change}), headers=_JSON)
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param), error
    assert error["type"] == "invalid_request_error" and len(error["message"]) < 400


_JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("name", ["model", "voice", "input"])
def test_what_must_be_there(http: httpx.Client, name: str) -> None:
    answer = http.post(SPEECH, json={key: value for key, value in PAYLOAD.items() if key != name})
    error = error_of(answer)
    assert (answer.status_code, error["param"]) == (400, name)
    assert error["code"] == "missing_required_parameter"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"hi"',
        b"\xff\xfe",
        b'{"model":' + b"[" * 20_000,
        b'{"seed":' + b"1" * 9000 + b"}",
        b'{"model": 1e999}',
    ],
)
def test_malformed_json(http: httpx.Client, body: bytes) -> None:
    answer = http.post(SPEECH, content=body, headers=_JSON)
    assert answer.status_code == 400
    error_of(answer)


def test_other_types_of_content(http: httpx.Client) -> None:
    for headers in ({"Content-Type": "text/plain"}, {}, {"Content-Type": "multipart/form-data"}):
        answer = http.post(SPEECH, content=json.dumps(PAYLOAD), headers=headers)
        assert answer.status_code == 400, headers
        error_of(answer)


def test_huge_bodies(server: RunningServer, http: httpx.Client) -> None:
    """Refused by what they say of their size, and by what they are; nothing is read on."""
    answer = http.post(SPEECH, content=b"[" + b" " * 60_000 + b"]", headers=_JSON)
    assert (answer.status_code, error_of(answer)["code"]) == (413, "body_too_large")
    head = f"POST {SPEECH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.create_connection(server.address, timeout=30) as endless:
        endless.sendall(f"{head}Content-Length: {2**60}\r\n\r\n".encode())
        assert endless.recv(100).startswith(b"HTTP/1.1 413")
    with socket.create_connection(server.address, timeout=30) as endless:
        endless.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(6):
            endless.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
        assert endless.recv(100).startswith(b"HTTP/1.1 413")


def test_bodies_that_do_not_come(unending: Synthesizer) -> None:
    with (
        running(unending, limits=Limits(body_seconds=0.2)) as server,
        socket.create_connection(server.address, timeout=30) as slow,
    ):
        slow.sendall(f"POST {SPEECH} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode())
        assert slow.recv(100).startswith(b"HTTP/1.1 408")


def test_unknown_places(http: httpx.Client) -> None:
    for path in ("/v1", "/v1/", "/v1/nothing", "/nothing", "/v1/audio/speech/", "/docs", "/openapi.json"):
        answer = http.get(path)
        assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found"), path
    for answer in (http.get(SPEECH), http.delete("/v1/models"), http.put("/v1/voices/default")):
        assert (answer.status_code, error_of(answer)["code"]) == (405, "method_not_allowed")


def test_api_key(unending: Synthesizer) -> None:
    with running(unending, api_key="right") as server, server.http() as http:
        for key in ("wrong", "righ", "right!", "r\xefght"):
            answer = http.get("/v1/models", headers={b"Authorization": f"Bearer {key}".encode("latin-1")})
            assert (answer.status_code, error_of(answer)["code"]) == (401, "invalid_api_key")
        for headers in ({}, {"Authorization": "right"}, {"Authorization": "Basic right"}):
            assert http.post(SPEECH, json=PAYLOAD, headers=headers).status_code == 401
        assert http.get("/metrics").status_code == 401
        assert http.get("/healthz").status_code == 200
        with openai_client(server.url, "wrong") as wrong, pytest.raises(openai.AuthenticationError):
            wrong.models.list()
        with openai_client(server.url, "right") as right:
            assert len(right.models.list().data) == 1


def test_the_key_guards_it_below_a_path(unending: Synthesizer) -> None:
    """Mounted in another app, and whatever way the path is written."""
    outer = FastAPI()
    with Service(unending, slots=1) as service:
        outer.mount("/below", create_server(service, VoiceFolder(unending), api_key="right"))
        with answering(outer) as (url, _), httpx.Client(base_url=url) as http:
            for path in ("/v1/models", "/%76%31/models", "/metrics"):
                assert http.get(f"/below{path}").status_code == 401
            key = {"Authorization": "Bearer right"}
            assert http.get("/below/v1/models", headers=key).status_code == 200
            assert http.get("/below/healthz").status_code == 200


def test_rate(unending: Synthesizer) -> None:
    with running(unending, limits=Limits(rate_per_minute=3)) as server, server.http() as http:
        assert [http.get("/v1/models").status_code for _ in range(3)] == [200] * 3
        answer = http.get("/v1/models")
        assert (answer.status_code, error_of(answer)["code"]) == (429, "rate_limit_exceeded")
        assert 1 <= int(answer.headers["Retry-After"]) <= 21
        assert http.get("/healthz").status_code == 200


def test_pages_of_other_sites(unending: Synthesizer, server: RunningServer, http: httpx.Client) -> None:
    """A browser says which site a request comes from; only sites that were named may."""
    evil, own = {"Origin": "https://evil.example"}, {"Origin": server.url}
    answer = http.get("/v1/models", headers=evil)
    assert (answer.status_code, error_of(answer)["code"]) == (403, "origin_not_allowed")
    assert http.get("/v1/models", headers={"Origin": "null"}).status_code == 403
    assert http.get("/v1/models", headers=own).status_code == 200
    assert "access-control-allow-origin" not in http.get("/v1/models", headers=own).headers
    with running(unending, origins=["https://good.example"]) as open_server, open_server.http() as http:
        good = {"Origin": "https://good.example"}
        preflight = {**good, "Access-Control-Request-Method": "POST"}
        assert (
            http.options(SPEECH, headers=preflight).headers["access-control-allow-origin"] == good["Origin"]
        )
        assert http.get("/v1/models", headers=good).status_code == 200
        assert http.get("/v1/models", headers=evil).status_code == 403


def test_a_broken_engine_is_no_secret(unending: Synthesizer, bundle: Path) -> None:
    """500 and one line to the client when a take fails, 503 when the engine is dead."""
    broken = Synthesizer.from_pretrained(bundle, device="cpu")
    with running(broken) as server, server.http() as http:
        embedding = broken.tts.text_embedding.weight
        embedding.data = embedding.data[:, :5]
        answer = http.post(SPEECH, json=PAYLOAD)
        error = error_of(answer)
        assert (answer.status_code, error["type"], error["code"]) == (500, "server_error", "internal_error")
        assert "mat" not in error["message"]


@pytest.mark.parametrize(("seed", "turns"), [(0, 300), pytest.param(1, 5000, marks=pytest.mark.slow)])
def test_random_bodies(http: httpx.Client, seed: int, turns: int) -> None:
    """Hundreds and thousands of them, most of which are not understood: 4xx, and the one shape."""
    rng = random.Random(seed)
    for _ in range(turns):
        body = {**PAYLOAD, "model": "cat-tts"}
        fields = [*PAYLOAD, "speed", "depth", "seed", "response_format", "policy", "strict", "more"]
        for name in rng.sample(fields, 2):
            body[name] = _anything(rng, 3)
        data = bytearray(json.dumps(body).encode())
        for _ in range(rng.choice([0, 0, 1, 5])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        answer = http.post(SPEECH, content=bytes(data), headers=_JSON)
        if answer.status_code != 200:
            assert 400 <= answer.status_code < 500, (bytes(data), answer.text)
            error_of(answer)


def _anything(rng: random.Random, deep: int) -> Any:
    text = "".join(rng.choices(string.printable + "\0\x7f\xe9\u4f60\ud800\U0001f600", k=rng.randrange(20)))
    plain = [None, True, 0, -1, 1e308, float("nan"), float("inf"), 2**64, -(10**30), "", text, "default"]
    if not deep or rng.random() < 0.6:
        return rng.choice(plain)
    inner = [_anything(rng, deep - 1) for _ in range(rng.randrange(3))]
    return inner if rng.random() < 0.5 else {str(index) + text: value for index, value in enumerate(inner)}
