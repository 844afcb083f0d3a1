"""Streaming of a long text by a service: order, pauses, errors, and closing."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from inference import Synthesizer
from inference.engine.job import Guard
from inference.engine.request import Request
from inference.longform.plan import LongFormPlan, plan
from inference.longform.stream import MAX_SILENT_FRAMES, LongFormStream, join_results
from inference.longform.synthesize import LongFormOptions, synthesize_long_form
from inference.synthesis.service import Service

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
def planned(service: Service, prompt_file: Path):
    def make(text: str = TEXT, **options) -> LongFormPlan:
        voice = service.synthesizer.voice(prompt_file, PROMPT_TEXT)
        usual = {"depth": 2, "seed": 3, "segment_seconds": 2.5}
        return plan(service.synthesizer, text, voice, **{**usual, **options})

    return make


def test_the_stream_equals_synthesize_long_form(service: Service, planned, prompt_file: Path) -> None:
    """Samples are equal for any chunks, and so are the joined results."""
    long_form = LongFormOptions(depth=2, seed=3, segment_seconds=2.5, retries=0)
    long_result = synthesize_long_form(service.synthesizer, TEXT, prompt_file, PROMPT_TEXT, long_form)
    for chunk_frames in (1, 7):
        stream = LongFormStream(service, planned(), chunk_frames=chunk_frames)
        progress, audio = [], []
        for part in stream:
            audio.append(part)
            progress.append(stream.segment)
        assert np.array_equal(np.concatenate(audio), long_result.audio)
        assert progress == sorted(progress) and set(progress) == {0, 1, 2, 3}
    results, rate = stream.results, service.synthesizer.tokenizer.config.frame_rate
    assert (
        [result.stop_reason for result in results]
        == [p.stop_reason for p in long_result.segments]
        == ["end"] * 4
    )
    assert stream.frames == sum(len(result.codes) for result in results) and stream.stop_reason == "end"
    whole = join_results(stream.plan, results, service.synthesizer.tokenizer)
    assert np.array_equal(whole.audio, long_result.audio) and (whole.depth, whole.seed) == (2, 3)
    pauses = [0.08, *(segment.pause_seconds for segment in stream.plan.segmented_text.segments)]
    silent = sum(round(seconds * rate) for seconds in pauses)
    assert len(whole.codes) == silent + stream.frames and round(2.5 * rate) > MAX_SILENT_FRAMES


def test_a_single_segment_is_the_request_itself(service: Service, planned) -> None:
    single = planned("Good morning.")
    stream = LongFormStream(service, single)
    audio = np.concatenate(list(stream))
    result = service.synthesize(single.requests[0])
    assert single.is_single_segment and np.array_equal(audio, result.audio)
    assert join_results(single, stream.results, service.synthesizer.tokenizer) is stream.results[0]
    assert single.requests[0].seed == 3 and torch.equal(stream.results[0].codes, result.codes)


def test_expected_seconds(planned) -> None:
    spoken = 0.9 / 12.5 * len(LETTERS)
    assert planned().expected_seconds == pytest.approx(0.08 + spoken + 0.3 + 0.6 + 2.5)


def test_a_full_queue_refuses_the_first_segment_and_later_ones_wait(service: Service, planned) -> None:
    text = "The old fox jumps. " * 4
    refused = threading.Event()
    stream = LongFormStream(service, planned(text, segment_seconds=1.5), guard=slowly(refused))
    with pytest.raises(ValueError, match="try again later"):
        LongFormStream(service, planned())
    refused.set()
    while len(stream.results) == 0:
        next(stream)
    # The first segment has ended: another request gets the only slot, and the second segment waits for it.
    other = service.stream(planned("The old fox jumps. " * 3, segment_seconds=60.0).requests[0])
    assert len(list(stream)) > 0 and len(stream.results) == len(stream.plan.requests)
    assert other.collect().stop_reason in ("end", "limit")


@pytest.mark.parametrize("segments", [0, 1])
def test_closed_by_another_thread(service: Service, planned, segments: int) -> None:
    """In the first or the second segment: no more audio comes, the slot is free, and the results remain."""
    long = planned("The lazy dog sleeps near the old house. " * 9, segment_seconds=20.0)
    closed = threading.Event()
    stream = LongFormStream(service, long, guard=slowly(closed, long.requests[segments].text))
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
    result = join_results(stream.plan, stream.results, service.synthesizer.tokenizer)
    assert result.seconds > 0 and result.stop_reason == "cancelled"


def test_a_runaway_segment_is_ended_and_the_next_follows(service: Service, planned) -> None:
    def guard(request):
        return lambda codes, audio: "silence" if request.text.startswith("A lazy") else None

    stream = LongFormStream(service, planned(), guard=guard)
    for _ in stream:
        pass
    assert [result.stop_reason for result in stream.results] == ["end", "silence", "end", "end"]
    assert len(stream.results[1].codes) == 1 and stream.stop_reason == "silence"


def test_errors_come_before_any_audio(planned) -> None:
    for text, message in (
        ("A [pause] b", "is no pause"),
        ("...", "nothing to speak"),
        ("[pause 61s] a", "too long"),
    ):
        with pytest.raises(ValueError, match=message):
            planned(text)
