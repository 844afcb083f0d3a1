"""The server as OpenAI's client sees it."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest

from inference import Synthesizer
from inference.longform.synthesize import Delivery, read
from inference.synthesis.loading import DEFAULT_MODEL
from inference.text.normalization import normalise
from tests.helpers.serving import (
    ASK,
    LONG,
    LONG_FRAMES,
    SHORT,
    SHORT_FRAMES,
    Running,
    decoded,
    error_of,
    running,
    until,
)
from tokenizer.io.audio import AI_GENERATED

PROMPT = DEFAULT_MODEL / "prompt.flac"


@pytest.fixture(scope="module")
def server(unending: Synthesizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(unending, tmp_path_factory.mktemp("voices")) as server:
        yield server


@pytest.fixture(scope="module")
def whole(server: Running) -> bytes:
    """A short take as pcm."""
    return server.speak()


def test_the_openai_client_is_answered_with_the_take(server: Running, unending: Synthesizer) -> None:
    answer = server.client.audio.speech.create(
        **ASK, response_format="pcm", extra_body={"depth": 3, "seed": 5}
    )
    voice = unending.voice(PROMPT, PROMPT.with_suffix(".txt").read_text().strip())
    take = unending.take(SHORT, voice, depth=3, seed=5)
    heard = np.frombuffer(answer.content, "<i2").astype(int)
    wanted = (take.audio.astype(float) * 32768).round().clip(-32768, 32767)
    assert len(heard) == len(wanted) == 1920 * SHORT_FRAMES and np.abs(wanted).max() > 100
    assert np.abs(heard - wanted).max() <= 1  # rows of a batch may differ from a row alone by a rounding
    headers = answer.response.headers
    assert (headers["X-Sample-Rate"], headers["X-Depth"], headers["X-Seed"]) == ("24000", "3", "5")
    assert headers["Content-Type"] == "audio/pcm" and headers["X-AI-Generated"] == "true"
    assert len(headers["X-Request-Id"]) == 32


def test_streamed_is_collected(server: Running, whole: bytes) -> None:
    """Chunk by chunk, by `stream_format` or not: the same bytes."""
    speech = server.client.audio.speech.with_streaming_response
    with speech.create(**ASK, response_format="pcm", stream_format="audio") as answer:
        chunks = list(answer.iter_bytes())
    assert len(chunks) > 1 and b"".join(chunks) == whole
    with speech.create(**ASK, response_format="pcm", stream_format="sse") as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        events = [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line]
    assert [event["type"] for event in events] == ["speech.audio.delta"] * SHORT_FRAMES + [
        "speech.audio.done"
    ]
    assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == whole
    done, usage = events[-1], events[-1]["usage"]
    assert (done["stop_reason"], done["depth"], done["seed"]) == ("limit", 6, 0)
    assert usage["output_tokens"] == SHORT_FRAMES and usage["input_tokens"] > 0
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
def test_formats(server: Running, whole: bytes, kind: str, extra: int, exact: bool, tagged: bool) -> None:
    """All have the length of the take, but for what mp3 and aac put around it; what is lossless is exact."""
    data = server.speak(response_format=kind)
    heard, wanted = decoded(data), np.frombuffer(whole, "<i2")
    assert len(wanted) <= len(heard) <= len(wanted) + extra
    assert (AI_GENERATED.encode() in data) == tagged
    if exact:
        assert np.array_equal(heard, wanted)
    else:
        assert np.abs(heard.astype(int)).max() > 0.3 * np.abs(wanted.astype(int)).max()


def test_a_long_text_is_spoken_in_pieces(server: Running, unending: Synthesizer) -> None:
    """As the command reads it, and heard while it is made; a pause is silence of exactly its length."""
    text = f"{SHORT}\n\n{SHORT} [pause 1.5s] It is 5 o'clock."
    speech = server.client.audio.speech.with_streaming_response
    extra = {"depth": 2, "seed": 4}
    ask: dict[str, Any] = {**ASK, "input": text, "response_format": "pcm", "extra_body": extra}
    with speech.create(**ask) as answer:
        assert answer.headers["X-Pieces"] == "3"
        chunks = answer.iter_bytes()
        data = next(chunks)
        assert server.service.engine.active == 1
        data += b"".join(chunks)
    voice = server.service.synthesizer.voice(PROMPT, PROMPT.with_suffix(".txt").read_text().strip())
    reading = read(unending, normalise(text), voice, delivery=Delivery(depth=2, seed=4, retries=0))
    assert [passage.text for passage in reading.passages] == [SHORT, SHORT, "It is five o'clock."]
    heard, wanted = np.frombuffer(data, "<i2").astype(int), (reading.audio.astype(float) * 32768).round()
    assert len(heard) == len(wanted) and np.abs(heard - wanted).max() <= 1
    with speech.create(**{**ask, "stream_format": "sse"}) as answer:
        done = [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line][-1]
    frames = 2 * SHORT_FRAMES + 25 + 35
    assert (done["type"], done["pieces"], done["usage"]["output_tokens"]) == ("speech.audio.done", 3, frames)


def test_mp3_is_the_default(server: Running) -> None:
    answer = server.client.audio.speech.create(**ASK)
    assert answer.response.headers["Content-Type"] == "audio/mpeg"
    assert answer.content[:3] == b"ID3" and len(decoded(answer.content)) >= 1920 * SHORT_FRAMES


def test_bytes_leave_while_frames_are_made(server: Running) -> None:
    speech = server.client.audio.speech.with_streaming_response
    for kind, sse in (("pcm", "audio"), ("wav", "audio"), ("mp3", "sse"), ("opus", "audio")):
        ask: dict[str, Any] = {"input": LONG, "voice": {"id": "default"}, "extra_body": {"depth": 1}}
        options: dict[str, Any] = {**ASK, **ask, "response_format": kind, "stream_format": sse}
        with speech.create(**options) as answer:
            chunks = answer.iter_bytes()
            assert next(chunks)
            assert server.service.engine.active == 1
            assert len(server.service.engine.tickets[0].audio) < LONG_FRAMES
        until(lambda: not server.service.engine.busy)


def test_models_health_and_metrics(server: Running) -> None:
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
    server.speak()
    assert server.metric("cat_tts_frames_total") == frames + SHORT_FRAMES
    assert server.metric("cat_tts_takes_total") == takes + 1
    assert server.metric("cat_tts_ttfa_seconds_count") == seconds + 1
    assert server.metric("cat_tts_rtf_count") > 0
    assert server.metric("cat_tts_requests_total", route="/v1/audio/speech", status="200") == ok + 1
    assert server.metric("cat_tts_errors_total", code="model_not_found") >= 1
    assert server.metric("cat_tts_slots") == 8
