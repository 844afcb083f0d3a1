"""The API behind Ray Serve, on one machine: OpenAI's client gets the same audio, while it is synthesized."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai import OpenAI

from cat_tts.generation.sampling import SAMPLING_FILE
from tests.helpers.paths import ROOT
from tests.helpers.serving import (
    LONG_TEXT,
    LONG_TEXT_FRAMES,
    NEVER_STOP,
    SHORT_TEXT,
    SHORT_TEXT_FRAMES,
    error_of,
)
from tokenizer.io.checkpoint import write_config

ray = pytest.importorskip("ray")
serve = pytest.importorskip("ray.serve")

from inference.server.ray_serve import RayServeOptions, build  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PAYLOAD: dict[str, Any] = {"model": "cat-tts", "voice": "default", "response_format": "pcm"}


@pytest.fixture(scope="module")
def address(bundle: Path) -> Iterator[str]:
    """Two replicas, and the key."""
    write_config(bundle / SAMPLING_FILE, NEVER_STOP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAT_TTS_API_KEY", "key")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        root = str(ROOT)
        environment = {"env_vars": {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}}
        ray.init(num_cpus=4, include_dashboard=False, runtime_env=environment, logging_level="warning")
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": 8765})
            serve.run(build(RayServeOptions(model=str(bundle), device="cpu", replicas=2, slots=2)))
            yield "http://127.0.0.1:8765"
        finally:
            serve.shutdown()
            ray.shutdown()
            (bundle / SAMPLING_FILE).unlink()


@pytest.fixture
def client(address: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{address}/v1", api_key="key", max_retries=0, timeout=120) as client:
        yield client


def test_bytes_come_while_frames_are_made(client: OpenAI) -> None:
    speech = client.audio.speech.with_streaming_response
    begun = time.perf_counter()
    with speech.create(**PAYLOAD, input=LONG_TEXT) as answer:
        chunks = answer.iter_bytes()
        data = next(chunks)
        first = time.perf_counter() - begun
        data += b"".join(chunks)
    assert len(data) == LONG_TEXT_FRAMES * 3840 and first < 0.5 * (time.perf_counter() - begun)


def test_eight_at_once_are_as_alone_on_either_replica(client: OpenAI) -> None:
    def take(seed: int) -> bytes:
        return client.audio.speech.create(
            **PAYLOAD, input=SHORT_TEXT, extra_body={"seed": seed, "depth": 1}
        ).content

    with ThreadPoolExecutor(8) as pool:
        concurrent = list(pool.map(take, range(8)))
    assert {len(audio) for audio in concurrent} == {SHORT_TEXT_FRAMES * 3840} and len(set(concurrent)) == 8
    for seed in (0, 5):  # samples are rounded to 16 bits from floats that company may move by their last bit
        sequential, among = (
            np.frombuffer(audio[:3840], "<i2").astype(int) for audio in (take(seed), concurrent[seed])
        )
        assert np.abs(sequential - among).max() <= 1
    (application,) = serve.status().applications.values()
    (deployment,) = application.deployments.values()
    assert deployment.replica_states == {"RUNNING": 2}


def test_mistakes_are_reported_as_without_ray(client: OpenAI, address: str) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.audio.speech.create(**{**PAYLOAD, "voice": "nobody"}, input=SHORT_TEXT)
    assert error_of(refused.value)["code"] == "voice_not_found"
    assert httpx.get(f"{address}/v1/models").status_code == 401
    assert httpx.get(f"{address}/healthz").json() == {"status": "ok"}
