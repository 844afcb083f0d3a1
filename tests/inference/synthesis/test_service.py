"""A service for many threads: slow readers, closed streams, a full queue and errors."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from cat_tts import SamplingOptions
from inference import Request, Synthesizer, Voice
from inference.engine.engine import EngineBusy
from inference.engine.options import SynthesisOptions
from inference.synthesis.runner import LocalRunner
from inference.synthesis.service import Service, ServiceClosed

PROMPT_TEXT, TEXT = "What the recording says.", "Good morning, old fox."
NEVER_STOP = SamplingOptions(decision_temperature=0)


@pytest.fixture
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture
def speaker(synthesizer: Synthesizer, voice: np.ndarray) -> Voice:
    return synthesizer.load_voice((voice, 24_000), PROMPT_TEXT)


@pytest.fixture
def service(synthesizer: Synthesizer) -> Iterator[Service]:
    with Service(synthesizer, slots=3) as service:
        yield service


def wanted(
    synthesizer: Synthesizer, speaker: Voice, seed: int, frames: int = 10, depth: int | None = None
) -> Request:
    return synthesizer.request(
        TEXT,
        speaker,
        SynthesisOptions(depth=depth, seed=seed, sampling=NEVER_STOP, max_seconds=frames / 12.5),
    )


def until(true: threading.Event) -> None:
    assert true.wait(20)


def test_threads_get_the_results_of_single_requests(
    synthesizer: Synthesizer, speaker: Voice, service: Service
) -> None:
    requests = [wanted(synthesizer, speaker, n, frames=3 + n % 5, depth=1 + n % 6) for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda request: service.stream(request).collect(), requests))
    for request, result in zip(requests, results, strict=True):
        separate = LocalRunner(synthesizer).stream(request).collect()
        assert torch.equal(result.codes, separate.codes) and result.stop_reason == separate.stop_reason
        np.testing.assert_allclose(result.audio, separate.audio, atol=1e-5, rtol=0)
    assert not service.engine.busy


def test_slow_readers_do_not_delay_others(synthesizer: Synthesizer, speaker: Voice, service: Service) -> None:
    """All slots have streams that are not read; these are synthesized, and others are served after them."""
    slow = [service.stream(wanted(synthesizer, speaker, seed, frames=20)) for seed in range(3)]
    quick = [service.stream(wanted(synthesizer, speaker, seed, frames=4)).collect() for seed in range(3, 9)]
    assert all(result.stop_reason == "limit" for result in quick)
    for seed, stream in enumerate(slow):
        result = stream.collect()
        separate = LocalRunner(synthesizer).stream(wanted(synthesizer, speaker, seed, frames=20)).collect()
        assert torch.equal(result.codes, separate.codes)


def test_a_request_without_reader_is_cancelled(synthesizer: Synthesizer, speaker: Voice) -> None:
    with Service(synthesizer, slots=1, patience=0.02) as service:
        gone = service.stream(wanted(synthesizer, speaker, 0, frames=500))
        assert len(service.stream(wanted(synthesizer, speaker, 1, frames=4)).collect().codes) == 4
        left = gone.collect()
    assert left.stop_reason == "cancelled" and 0 < len(left.codes) < 500


def test_closing_a_stream_frees_its_slot(synthesizer: Synthesizer, speaker: Voice) -> None:
    with Service(synthesizer, slots=1) as service:
        long = service.stream(wanted(synthesizer, speaker, 0, frames=700))
        next(long)
        behind = service.stream(wanted(synthesizer, speaker, 1, frames=2))
        long.close()
        assert len(behind.collect().codes) == 2
        assert long.result.stop_reason == "cancelled" and len(long.result.codes) == 1
        dropped = service.stream(wanted(synthesizer, speaker, 0, frames=700))
        next(dropped)
        del dropped
        assert len(service.stream(wanted(synthesizer, speaker, 1, frames=2)).collect().codes) == 2
        assert not service.engine.busy


def test_a_full_queue_is_reported_at_once(synthesizer: Synthesizer, speaker: Voice) -> None:
    with Service(synthesizer, slots=1, waiting=1) as service:
        streams = [service.stream(wanted(synthesizer, speaker, 0, frames=700))]
        next(streams[0])
        streams.append(service.stream(wanted(synthesizer, speaker, 1, frames=2)))
        with pytest.raises(EngineBusy, match=r"^1 requests are running, 1 wait: try again later"):
            service.stream(wanted(synthesizer, speaker, 2, frames=2))
        streams[0].close()
        assert len(streams[1].collect().codes) == 2
        assert len(service.stream(wanted(synthesizer, speaker, 2, frames=2)).collect().codes) == 2


def test_no_result_is_longer_than_the_limit(synthesizer: Synthesizer, speaker: Voice) -> None:
    with Service(synthesizer, max_seconds=0.4) as service:
        result = service.stream(wanted(synthesizer, speaker, 0, frames=50)).collect()
    assert (len(result.codes), result.stop_reason) == (5, "limit")


@pytest.mark.parametrize("limit", [{"max_seconds": 0.0}, {"patience": -1.0}])
def test_invalid_service_limits(synthesizer: Synthesizer, limit: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"give positive seconds$"):
        Service(synthesizer, **limit)  # pyright: ignore[reportArgumentType]


def test_a_bad_request_does_not_concern_others(
    synthesizer: Synthesizer, speaker: Voice, service: Service
) -> None:
    stream = service.stream(wanted(synthesizer, speaker, 0, frames=20))
    bad = Request(**{**vars(wanted(synthesizer, speaker, 1)), "max_frames": 0})
    with pytest.raises(ValueError, match="max_frames=0"):
        service.stream(bad).collect()
    assert len(stream.collect().codes) == 20


def test_closing_ends_running_requests(synthesizer: Synthesizer, speaker: Voice) -> None:
    service = Service(synthesizer, slots=1)
    first = service.stream(wanted(synthesizer, speaker, 0, frames=700))
    second = service.stream(wanted(synthesizer, speaker, 1, frames=700))
    next(first)
    closer = threading.Thread(target=service.close)
    closer.start()
    for stream in (first, second):
        with pytest.raises(ServiceClosed, match=r"^the service was closed before this request was complete"):
            stream.collect()
    closer.join(20)
    assert not closer.is_alive()
    with pytest.raises(ServiceClosed, match=r"^the service is closed: start another"):
        service.stream(wanted(synthesizer, speaker, 2)).collect()
    service.close()


def test_closing_may_finish_first(synthesizer: Synthesizer, speaker: Voice) -> None:
    service = Service(synthesizer, slots=2)
    streams = [service.stream(wanted(synthesizer, speaker, seed, frames=8)) for seed in range(5)]
    service.close(finish=True)
    assert [len(stream.collect().codes) for stream in streams] == [8] * 5
    idle = Service(synthesizer)
    idle.close(finish=True)


def test_a_broken_step_ends_its_requests_and_the_service_continues(
    synthesizer: Synthesizer, speaker: Voice, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guard blocks the worker between two frames, so that the decoder fails while requests run."""
    there, broken = threading.Event(), threading.Event()

    def guard(codes: torch.Tensor, audio: np.ndarray) -> None:
        if not there.is_set():
            there.set()
            until(broken)

    def breaking(*_: object) -> torch.Tensor:
        raise RuntimeError("out of memory")

    stage = synthesizer.tokenizer.decoder[1]
    stream = service.stream(wanted(synthesizer, speaker, 0, frames=20), guard=guard)
    until(there)
    monkeypatch.setattr(stage, "forward", breaking)
    broken.set()
    with pytest.raises(RuntimeError, match="out of memory"):
        stream.collect()
    monkeypatch.undo()
    assert len(service.stream(wanted(synthesizer, speaker, 1)).collect().codes) == 10
