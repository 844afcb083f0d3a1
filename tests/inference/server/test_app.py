"""The server as OpenAI's client sees it."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest

from inference import SynthesisOptions, Synthesizer
from inference.engine.options import ONE_ATTEMPT
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
    until,
)
from tokenizer.io.audio import AI_GENERATED

PROMPT = DEFAULT_MODEL / "prompt.flac"


@pytest.fixture(scope="module")
def server(unending: Synthesizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(unending, tmp_path_factory.mktemp("voices")) as server:
        yield server


@pytest.fixture(scope="module")
def voice(unending: Synthesizer) -> Voice:
    """The default voice of a server."""
    return unending.load_voice(PROMPT, PROMPT.with_suffix(".txt").read_text().strip())


@pytest.fixture(scope="module")
def whole_pcm(server: RunningServer) -> bytes:
    """A short take as pcm, which is sent live."""
    return server.speak()


def test_the_openai_client_is_answered_with_the_take(
    server: RunningServer, unending: Synthesizer, voice: Voice
) -> None:
    response = server.client.audio.speech.create(
        **PAYLOAD, response_format="pcm", extra_body={"depth": 3, "seed": 5}
    )
    take = unending.synthesize(SHORT_TEXT, voice, SynthesisOptions(depth=3, seed=5, policy=ONE_ATTEMPT))
    audio, expected = as_int16(response.content), as_int16(take)
    assert len(audio) == len(expected) == 1920 * SHORT_TEXT_FRAMES and np.abs(expected).max() > 100
    assert np.abs(audio - expected).max() <= 1  # rows of a batch may differ from a row alone by a rounding
    headers = response.response.headers
    assert (headers["X-Sample-Rate"], headers["X-Depth"], headers["X-Seed"]) == ("24000", "3", "5")
    assert headers["Content-Type"] == "audio/pcm" and headers["X-AI-Generated"] == "true"
    assert headers["X-Policy"] == "live" and headers["X-Segments"] == "1"
    assert len(headers["X-Request-Id"]) == 32


def test_streamed_is_collected(server: RunningServer, whole_pcm: bytes) -> None:
    """Chunk by chunk, by `stream_format` or not: the same bytes."""
    speech = server.client.audio.speech.with_streaming_response
    with speech.create(**PAYLOAD, response_format="pcm", stream_format="audio") as response:
        chunks = list(response.iter_bytes())
    assert len(chunks) > 1 and b"".join(chunks) == whole_pcm
    with speech.create(**PAYLOAD, response_format="pcm", stream_format="sse") as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        events = [json.loads(line.removeprefix("data: ")) for line in response.iter_lines() if line]
    assert [event["type"] for event in events] == ["speech.audio.delta"] * SHORT_TEXT_FRAMES + [
        "speech.audio.done"
    ]
    assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == whole_pcm
    done, usage = events[-1], events[-1]["usage"]
    assert (done["stop_reason"], done["depth"], done["seed"]) == ("limit", 6, 0)
    assert (done["attempts"], done["acceptable"], done["intelligibility"]) == (1, False, None)
    assert usage["output_tokens"] == SHORT_TEXT_FRAMES and usage["input_tokens"] > 0
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


@pytest.mark.parametrize(
    ("kind", "extra", "exact", "tagged"),
    [
        ("wav", 0, True, True),
        ("flac", 0, True, True),
        ("opus", 0, False, True),
        ("mp3", 3 * 576, False, True),
        ("aac", 3 * 1024, False, False),
    ],
)
@pytest.mark.parametrize("policy", ["live", "checked"])
def test_formats(
    server: RunningServer, policy: str, kind: str, extra: int, exact: bool, tagged: bool
) -> None:
    """All have the length of the take, but for what mp3 and aac put around it; what is lossless is exact."""
    data = server.speak(response_format=kind, policy=policy)
    audio, expected = decoded(data), np.frombuffer(server.speak(policy=policy), "<i2")
    assert len(expected) <= len(audio) <= len(expected) + extra
    assert (AI_GENERATED.encode() in data) == tagged
    if exact:
        assert np.array_equal(audio, expected)
    else:
        assert np.abs(audio.astype(int)).max() > 0.3 * np.abs(expected.astype(int)).max()


def test_a_long_text_is_spoken_in_segments(
    server: RunningServer, unending: Synthesizer, voice: Voice
) -> None:
    """The audio is that of Python's stream, sent while it is synthesized: the first segment at once, those
    behind it when they were checked."""
    text = f"{SHORT_TEXT}\n\n{SHORT_TEXT} [pause 1.5s] It is 5 o'clock."
    speech = server.client.audio.speech.with_streaming_response
    extra = {"depth": 2, "seed": 4}
    payload: dict[str, Any] = {**PAYLOAD, "input": text, "response_format": "pcm", "extra_body": extra}
    with speech.create(**payload) as response:
        assert response.headers["X-Segments"] == response.headers["X-Pieces"] == "3"
        chunks = response.iter_bytes()
        data = next(chunks)
        assert server.service.engine.active == 1
        data += b"".join(chunks)
    with unending.stream(text, voice, SynthesisOptions(depth=2, seed=4)) as stream:
        result = stream.collect()
    texts = [segment.request and segment.request.text for segment in result.segments]
    assert texts == [SHORT_TEXT, SHORT_TEXT, "It is five o'clock."]
    assert [segment.attempts for segment in result.segments] == [1, 3, 3]
    audio, expected = as_int16(data), as_int16(result)
    assert len(audio) == len(expected) and np.abs(audio - expected).max() <= 1
    with speech.create(**{**payload, "stream_format": "sse"}) as response:
        done = [json.loads(line.removeprefix("data: ")) for line in response.iter_lines() if line][-1]
    frames = 2 * SHORT_TEXT_FRAMES + 25 + 35
    assert (done["type"], done["usage"]["output_tokens"]) == ("speech.audio.done", frames)
    assert done["segments"] == done["pieces"] == 3 and done["attempts"] == 7


def test_mp3_is_the_default(server: RunningServer) -> None:
    response = server.client.audio.speech.create(**PAYLOAD)
    assert response.response.headers["Content-Type"] == "audio/mpeg"
    assert response.content[:3] == b"ID3" and len(decoded(response.content)) >= 1920 * SHORT_TEXT_FRAMES


def test_bytes_leave_while_frames_are_made(server: RunningServer) -> None:
    speech = server.client.audio.speech.with_streaming_response
    for kind, sse, more in (
        ("pcm", "audio", {}),
        ("wav", "audio", {"policy": "live"}),
        ("mp3", "sse", {}),
        ("opus", "audio", {}),
    ):
        extra: dict[str, Any] = {"depth": 1, **more}
        payload: dict[str, Any] = {"input": LONG_TEXT, "voice": {"id": "default"}, "extra_body": extra}
        options: dict[str, Any] = {**PAYLOAD, **payload, "response_format": kind, "stream_format": sse}
        with speech.create(**options) as response:
            chunks = response.iter_bytes()
            assert next(chunks)
            assert server.service.engine.active == 1
            assert len(server.service.engine.handles[0].audio) < LONG_TEXT_FRAMES
        until(lambda: not server.service.engine.busy)


def test_models_health_and_metrics(server: RunningServer) -> None:
    client = server.client
    assert [model.id for model in client.models.list()] == ["cat-tts"]
    assert client.models.retrieve("cat-tts").id == "cat-tts"
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("tts-1")
    assert error_of(refused.value)["code"] == "model_not_found"
    with server.http() as http:
        assert http.get("/healthz").json() == {"status": "ok"}
    frames, takes = server.metric("cat_tts_frames_total"), server.metric("cat_tts_takes_total")
    seconds = server.metric("cat_tts_ttfa_seconds_count")
    ok = server.metric("cat_tts_requests_total", route="/v1/audio/speech", status="200")
    for answers, attempts in ((1, 1), (2, 4)):  # a live one, then a checked one of three attempts
        server.speak(policy="live" if answers == 1 else "checked")
        assert server.metric("cat_tts_frames_total") == frames + attempts * SHORT_TEXT_FRAMES
        assert server.metric("cat_tts_takes_total") == takes + answers
        assert server.metric("cat_tts_ttfa_seconds_count") == seconds + answers
        status = {"route": "/v1/audio/speech", "status": "200"}
        assert server.metric("cat_tts_requests_total", **status) == ok + answers
    assert server.metric("cat_tts_rtf_count") > 0
    assert server.metric("cat_tts_errors_total", code="model_not_found") >= 1
    assert server.metric("cat_tts_slots") == 8
