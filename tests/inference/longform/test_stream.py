"""Streaming of a long text by a service: order, pauses, errors, and closing."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference import RetryPolicy, SynthesisFailed, SynthesisOptions, SynthesisStream, Synthesizer
from inference.engine.job import Guard
from inference.engine.options import ONE_ATTEMPT
from inference.engine.request import Request
from inference.longform.plan import SpeechPlan, plan
from inference.synthesis.runner import LocalRunner
from inference.synthesis.service import Service
from inference.voices.voice import SILENT_FRAMES

Planner = Callable[..., SpeechPlan]
PROMPT_TEXT = "What the recording says."
TEXT = (
    "[pause 80ms]The old fox jumps. A lazy dog sleeps near the house.\n\n"
    "Good day! [pause 2.5s] Today the bird runs."
)
LETTERS = "The old fox jumps.A lazy dog sleeps near the house.Good day!Today the bird runs."


def slowly(until: threading.Event, text: str | None = None):
    """Return a guard that never stops, but delays every frame, of all segments or of one text."""

    def of(request: Request) -> Guard:
        def look(codes, audio) -> None:
            if text in (None, request.text):
                until.wait(0.05)

        return look

    return of


@pytest.fixture(scope="module")
def service(bundle: Path) -> Iterator[Service]:
    with Service(Synthesizer.from_pretrained(bundle, device="cpu"), slots=1, waiting=0) as service:
        yield service


@pytest.fixture
def planned(service: Service, prompt_file: Path) -> Planner:
    """Return a function that plans texts, once the only slot is free again."""
    until = time.monotonic() + 20
    while service.engine.busy:
        assert time.monotonic() < until

    def make(text: str = TEXT, **options: Any) -> SpeechPlan:
        voice = service.models.load_voice(prompt_file, PROMPT_TEXT)
        usual = {"depth": 2, "seed": 3, "segment_seconds": 2.5, "policy": ONE_ATTEMPT}
        return plan(service.models, text, voice, SynthesisOptions(**{**usual, **options}))

    return make


@pytest.mark.parametrize(("live", "chunk_frames"), [(True, 1), (True, 7), (False, 1)])
def test_a_stream_of_segments(service: Service, planned: Planner, live: bool, chunk_frames: int) -> None:
    """Samples are equal for any chunks, whether live or not, and so is the joined result."""
    whole = SynthesisStream(LocalRunner(service.models), planned()).collect()
    stream = SynthesisStream(service, planned(), live=live, chunk_frames=chunk_frames)
    progress, audio = [], []
    for part in stream:
        audio.append(part)
        progress.append(stream.segment)
    assert np.array_equal(np.concatenate(audio), whole.audio)
    assert progress == sorted(progress) and set(progress) == {0, 1, 2, 3}
    assert [result.stop_reason for result in stream.results] == ["end"] * 4
    assert stream.frames == sum(len(result.codes) for result in stream.results)
    assert stream.stop_reason == "end"
    result, rate = stream.result, service.models.tokenizer.config.frame_rate
    assert np.array_equal(result.audio, whole.audio) and torch.equal(result.codes, whole.codes)
    assert (result.depth, result.seed, result.attempts, len(result.segments)) == (2, 3, 4, 4)
    assert result.pauses == (0.08, 0.3, 0.6, 2.5, 0.0)
    silent = sum(round(seconds * rate) for seconds in result.pauses)
    assert len(result.codes) == silent + stream.frames and round(2.5 * rate) > SILENT_FRAMES


def test_a_single_segment_is_the_request_itself(service: Service, planned: Planner) -> None:
    single = planned("Good morning.")
    stream = SynthesisStream(service, single, live=True)
    audio = np.concatenate(list(stream))
    result = service.stream(single.requests[0]).collect()
    assert single.is_single_segment and np.array_equal(audio, result.audio)
    assert stream.result is stream.results[0] and stream.result.parts == (stream.result,)
    assert single.requests[0].seed == 3 and torch.equal(stream.result.codes, result.codes)


def test_results_come_at_the_end(service: Service, planned: Planner) -> None:
    with SynthesisStream(service, planned(), live=True) as stream:
        next(stream)
        with pytest.raises(ValueError, match="the result is not complete: read its stream to the end"):
            _ = stream.result
    unread = SynthesisStream(service, planned())
    unread.close()
    assert list(unread) == []
    with pytest.raises(ValueError, match="closed before anything was spoken"):
        _ = unread.result


def test_a_live_first_segment_is_kept_and_later_ones_are_tried_again(
    service: Service, planned: Planner
) -> None:
    """What was played cannot be taken back; of later segments only the attempt that was accepted is heard."""
    counts: dict[str, int] = {}

    def guard(request: Request) -> Guard:
        counts[request.text] = counts.get(request.text, 0) + 1
        failing = counts[request.text] == 1
        return lambda codes, audio: "silence" if failing else None

    planned_texts = planned(policy=RetryPolicy(retries=2))
    stream = SynthesisStream(service, planned_texts, live=True, guard=guard)
    audio = np.concatenate(list(stream))
    assert [result.attempts for result in stream.results] == [1, 2, 2, 2]
    assert [result.acceptable for result in stream.results] == [False, True, True, True]
    assert len(stream.results[0].codes) == 1 and stream.stop_reason == "silence"
    assert np.array_equal(audio, stream.result.audio) and not stream.result.acceptable
    counts.clear()
    checked = SynthesisStream(service, planned_texts, guard=guard).collect()
    assert [segment.attempts for segment in checked.segments] == [2, 2, 2, 2] and checked.acceptable
    assert checked.attempts == 8 and checked.stop_reason == "end"


def test_strict_streams_fail_at_their_end(service: Service, planned: Planner) -> None:
    def silent(request: Request) -> Guard:
        return lambda codes, audio: "silence"

    stream = SynthesisStream(service, planned(policy=RetryPolicy(retries=1, strict=True)), guard=silent)
    with pytest.raises(SynthesisFailed, match=r"no attempt of 8 succeeded \(stopped: silence\)") as failure:
        stream.collect()
    assert [segment.attempts for segment in failure.value.result.segments] == [2] * 4


def test_expected_seconds(planned: Planner) -> None:
    spoken = 0.9 / 12.5 * len(LETTERS)
    assert planned().expected_seconds == pytest.approx(0.08 + spoken + 0.3 + 0.6 + 2.5)


def test_a_full_queue_refuses_the_first_segment_and_later_ones_wait(
    service: Service, planned: Planner
) -> None:
    text = "The old fox jumps. " * 4
    refused = threading.Event()
    stream = SynthesisStream(service, planned(text, segment_seconds=1.5), live=True, guard=slowly(refused))
    with pytest.raises(ValueError, match="try again later"):
        SynthesisStream(service, planned(), live=True)
    with pytest.raises(ValueError, match="try again later"):
        next(SynthesisStream(service, planned("Good morning.")))
    refused.set()
    while len(stream.results) == 0:
        next(stream)
    # The first segment has ended: another request gets the only slot, and the second segment waits for it.
    other = service.stream(planned("The old fox jumps. " * 3, segment_seconds=60.0).requests[0])
    assert len(list(stream)) > 0 and len(stream.results) == len(stream.plan.requests)
    assert other.collect().stop_reason in ("end", "limit")


def test_closed_while_it_waits_for_room(service: Service, planned: Planner) -> None:
    """What was spoken remains; that the queue is full is no concern of a reader who has left."""
    stream = SynthesisStream(service, planned(policy=RetryPolicy(retries=0)))
    while not stream.results:
        next(stream)
    request, released = planned("The old fox jumps.").requests[0], threading.Event()
    blocking = service.stream(request, guard=lambda codes, audio: None if released.wait(20) else "silence")
    timer = threading.Timer(0.3, stream.close)
    timer.start()
    assert list(stream) and stream.stop_reason == "cancelled" and len(stream.results) == 1
    assert service.engine.busy and stream.result.stop_reason == "cancelled"
    released.set()
    blocking.close()


@pytest.mark.parametrize("segments", [0, 1])
def test_closed_by_another_thread(service: Service, planned: Planner, segments: int) -> None:
    """In the first or the second segment: no more audio comes, the slot is free, and the results remain."""
    long = planned("The lazy dog sleeps near the old house. " * 9, segment_seconds=20.0)
    closed = threading.Event()
    stream = SynthesisStream(service, long, live=True, guard=slowly(closed, long.requests[segments].text))
    while len(stream.results) < segments or stream.frames == sum(
        len(result.codes) for result in stream.results
    ):
        next(stream)
    closer = threading.Thread(target=stream.close)
    closer.start()
    closer.join()
    closed.set()
    assert list(stream) == [] and stream.stop_reason == "cancelled"
    assert len(stream.results) == segments + 1 and stream.results[-1].stop_reason == "cancelled"
    give_up = time.monotonic() + 20
    while service.engine.busy:
        assert time.monotonic() < give_up
    result = stream.result
    assert result.seconds > 0 and result.stop_reason == "cancelled"


def test_a_runaway_segment_is_ended_and_the_next_follows(service: Service, planned: Planner) -> None:
    def guard(request):
        return lambda codes, audio: "silence" if request.text.startswith("A lazy") else None

    stream = SynthesisStream(service, planned(), guard=guard)
    for _ in stream:
        pass
    assert [result.stop_reason for result in stream.results] == ["end", "silence", "end", "end"]
    assert len(stream.results[1].codes) == 1 and stream.stop_reason == "silence"


def test_errors_come_before_any_audio(planned: Planner) -> None:
    for text, message in (
        ("A [pause] b", "is no pause"),
        ("...", "nothing to speak"),
        ("[pause 61s] a", "too long"),
    ):
        with pytest.raises(ValueError, match=message):
            planned(text)
