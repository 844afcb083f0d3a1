"""Answers that are sent whole, after their segments were checked, and what becomes of failed attempts."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from cat_tts.asr.config import tiny
from cat_tts.asr.model import CatASR
from inference import RetryPolicy, SynthesisOptions, SynthesisResult, Synthesizer
from inference.server.limits import Limits
from inference.synthesis import attempts, quality
from inference.synthesis.loading import DEFAULT_MODEL
from inference.voices.voice import Voice
from tests.helpers.serving import (
    LONG_TEXT,
    LONG_TEXT_FRAMES,
    PAYLOAD,
    SHORT_TEXT,
    SHORT_TEXT_FRAMES,
    RunningServer,
    as_int16,
    decoded,
    error_of,
    running,
    slow_down,
    until,
)

SPEECH = "/v1/audio/speech"
PROMPT = DEFAULT_MODEL / "prompt.flac"
TWO_SEGMENTS = f"{SHORT_TEXT} [pause 0.5s] It is late."


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Iterator[Synthesizer]:
    """Ends by the toss of a coin after every frame; what has three frames or more is understood."""

    def understood(_: object, result: SynthesisResult) -> float:
        return -0.25 if len(result.codes) >= 3 else -2.5

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attempts, "intelligibility", understood)
        yield Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture(scope="module")
def server(synthesizer: Synthesizer) -> Iterator[RunningServer]:
    with running(synthesizer) as server:
        yield server


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx.Client]:
    with server.http() as http:
        yield http


@pytest.fixture(scope="module")
def voice(synthesizer: Synthesizer) -> Voice:
    """The default voice of a server."""
    return synthesizer.load_voice(PROMPT, PROMPT.with_suffix(".txt").read_text().strip())


def seed_of(synthesizer: Synthesizer, voice: Voice, count: int) -> tuple[int, SynthesisResult]:
    """The first seed whose short take is accepted after so many attempts, and that take."""
    for seed in range(50):
        take = synthesizer.synthesize(SHORT_TEXT, voice, SynthesisOptions(depth=2, seed=seed))
        if take.acceptable and take.attempts == count:
            return seed, take
    raise AssertionError("no seed of 50")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_answer_tells_its_attempts(
    synthesizer: Synthesizer, voice: Voice, http: httpx.Client, count: int
) -> None:
    """The audio is that of Python's `synthesize`, and the headers say how it was got."""
    seed, take = seed_of(synthesizer, voice, count)
    answer = http.post(SPEECH, json={**PAYLOAD, "seed": seed, "depth": 2, "response_format": "wav"})
    audio, expected = decoded(answer.content).astype(int), as_int16(take)
    assert len(audio) == len(expected) and np.abs(audio - expected).max() <= 1
    assert answer.headers["Content-Length"] == str(len(answer.content))
    reported = {"Policy": "checked", "Attempts": str(count), "Stop-Reason": "end", "Acceptable": "true"}
    reported["Intelligibility"] = "-0.250"
    assert {name: answer.headers[f"X-{name}"] for name in reported} == reported
    assert (answer.headers["X-Seed"], answer.headers["X-Depth"]) == (str(seed), "2")


def test_a_checked_text_of_several_segments_is_that_of_python(
    synthesizer: Synthesizer, voice: Voice, http: httpx.Client
) -> None:
    options = SynthesisOptions(depth=2, seed=3)
    take = synthesizer.synthesize(TWO_SEGMENTS, voice, options)
    fields = {"input": TWO_SEGMENTS, "depth": 2, "seed": 3, "policy": "checked"}
    answer = http.post(SPEECH, json={**PAYLOAD, **fields, "response_format": "pcm"})
    audio, expected = as_int16(answer.content), as_int16(take)
    assert len(audio) == len(expected) and np.abs(audio - expected).max() <= 1
    assert answer.headers["X-Segments"] == "2" and answer.headers["X-Attempts"] == str(take.attempts)
    assert answer.headers["X-Stop-Reason"] == take.stop_reason
    assert answer.headers["X-Acceptable"] == str(take.acceptable).lower()


def test_a_live_answer_tells_nothing_that_is_not_known_yet(http: httpx.Client) -> None:
    answer = http.post(SPEECH, json={**PAYLOAD, "depth": 2, "policy": "live"})
    assert answer.headers["X-Policy"] == "live"
    unknown = ("Content-Length", "X-Attempts", "X-Stop-Reason", "X-Acceptable", "X-Intelligibility")
    assert [name for name in unknown if name in answer.headers] == []


def test_checked_events_bring_the_speech_at_once(
    synthesizer: Synthesizer, voice: Voice, http: httpx.Client
) -> None:
    seed, take = seed_of(synthesizer, voice, 2)
    fields = {"response_format": "pcm", "stream_format": "sse", "policy": "checked"}
    answer = http.post(SPEECH, json={**PAYLOAD, **fields, "seed": seed, "depth": 2})
    delta, done = events_of(answer)
    assert (delta["type"], done["type"]) == ("speech.audio.delta", "speech.audio.done")
    assert answer.headers["X-Attempts"] == "2" and "Content-Length" not in answer.headers
    assert (done["attempts"], done["acceptable"], done["stop_reason"]) == (2, True, "end")
    assert done["usage"]["output_tokens"] == len(take.codes)


def test_without_a_recognizer_nothing_is_told_of_words(
    unending: Synthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "intelligibility", quality.intelligibility)
    with running(unending, slots=1) as server, server.http() as http:
        answer = http.post(SPEECH, json={**PAYLOAD, "depth": 1})
        assert "X-Intelligibility" not in answer.headers and answer.headers["X-Acceptable"] == "false"
        assert (answer.headers["X-Attempts"], answer.headers["X-Stop-Reason"]) == ("3", "limit")


def test_what_is_recognized_is_told(bundle: Path, voice: Voice, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recognizer of random weights hears nothing: the best of all attempts is sent, and said to be bad."""
    monkeypatch.setattr(attempts, "intelligibility", quality.intelligibility)
    recognizing = Synthesizer.from_pretrained(bundle, device="cpu")
    torch.manual_seed(0)
    recognizing.asr_model = CatASR(tiny()).eval()
    take = recognizing.synthesize(SHORT_TEXT, voice, SynthesisOptions(depth=2))
    assert take.intelligibility is not None and not take.acceptable
    with running(recognizing, slots=1) as server, server.http() as http:
        answer = http.post(SPEECH, json={**PAYLOAD, "depth": 2})
        assert float(answer.headers["X-Intelligibility"]) == pytest.approx(take.intelligibility, abs=6e-4)
        assert (answer.headers["X-Attempts"], answer.headers["X-Acceptable"]) == ("3", "false")
        refused = http.post(SPEECH, json={**PAYLOAD, "depth": 2, "strict": True})
        assert (refused.status_code, error_of(refused)["code"]) == (500, "synthesis_failed")
        sse = {**PAYLOAD, "depth": 2, "stream_format": "sse", "policy": "checked"}
        done = events_of(http.post(SPEECH, json=sse))[-1]
        assert done["intelligibility"] == pytest.approx(take.intelligibility, abs=1e-3)


def test_under_strict_a_failure_is_an_error(unending: Synthesizer) -> None:
    """As a status where nothing was sent yet, as an event, or by a body that is cut."""
    with running(unending, slots=1) as server, server.http() as http:
        body = {**PAYLOAD, "depth": 1, "strict": True}
        refused = http.post(SPEECH, json=body)
        error = error_of(refused)
        assert (refused.status_code, error["code"], error["type"]) == (
            500,
            "synthesis_failed",
            "server_error",
        )
        assert "no attempt of 3 succeeded (stopped: limit)" in error["message"]
        assert server.metric("cat_tts_errors_total", code="synthesis_failed") == 1
        assert server.metric("cat_tts_frames_total") == 3 * SHORT_TEXT_FRAMES
        assert server.metric("cat_tts_takes_total", stop_reason="limit") == 1
        *deltas, last = events_of(http.post(SPEECH, json={**body, "stream_format": "sse"}))
        assert len(deltas) > 0 and last["error"]["code"] == "synthesis_failed"
        with (
            pytest.raises(httpx.RemoteProtocolError),
            http.stream("POST", SPEECH, json={**body, "response_format": "pcm"}) as answer,
        ):
            assert answer.status_code == 200
            list(answer.iter_raw())
        assert not server.service.engine.busy
        lenient = http.post(SPEECH, json={**body, "strict": False})
        assert (lenient.status_code, lenient.headers["X-Acceptable"]) == (200, "false")


def test_who_leaves_a_checked_answer_frees_its_slot(
    unending: Synthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the middle of an attempt, and no further attempt is begun."""
    with running(unending, slots=1) as server:
        slow_down(server.service.engine, monkeypatch)
        with socket.create_connection(server.address) as client:
            client.sendall(raw_request({**PAYLOAD, "input": LONG_TEXT, "depth": 1, "response_format": "wav"}))
            until(lambda: server.metric("cat_tts_frames_total") > 5)
            assert server.service.engine.active == 1
        until(lambda: not server.service.engine.busy)
        until(lambda: server.metric("cat_tts_takes_total", stop_reason="cancelled") == 1)
        frames = server.metric("cat_tts_frames_total")
        assert frames < LONG_TEXT_FRAMES
        time.sleep(0.3)
        assert server.metric("cat_tts_frames_total") == frames and not server.service.engine.busy


def test_only_who_waits_for_a_first_frame_is_too_late(
    unending: Synthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checked answer takes three attempts, longer than the queue may last; it is sent all the same."""
    with running(unending, slots=1, limits=Limits(queue_seconds=0.5)) as server, server.http() as http:
        slow_down(server.service.engine, monkeypatch)
        start = time.monotonic()
        answer = http.post(SPEECH, json={**PAYLOAD, "depth": 1})
        assert answer.status_code == 200 and time.monotonic() - start > 3 * SHORT_TEXT_FRAMES * 0.02
        live = {**PAYLOAD, "input": LONG_TEXT, "depth": 1, "policy": "live"}
        with http.stream("POST", SPEECH, json=live) as first:
            chunks = first.iter_raw()
            next(chunks)
            for policy in ("live", "checked"):
                late = http.post(SPEECH, json={**PAYLOAD, "depth": 1, "policy": policy})
                assert (late.status_code, error_of(late)["code"]) == (503, "queue_timeout")
                assert int(late.headers["Retry-After"]) > 0
                until(lambda: server.service.engine.queued == 0)
            assert server.service.engine.active == 1
        until(lambda: not server.service.engine.busy)


def test_the_policy_of_the_server_is_that_of_python() -> None:
    assert SynthesisOptions().policy == RetryPolicy() == RetryPolicy(retries=2, stop_runaways=True)


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]


def raw_request(body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {SPEECH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n"
    return head.encode() + b"Content-Type: application/json\r\n\r\n" + data
