"""A long text through a service: what is heard is what was made, in order, and it ends when it shall."""

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
from inference.longform.plan import Plan, plan
from inference.longform.stream import SILENT_FRAMES, ReadingStream, joined
from inference.longform.synthesize import Delivery, read
from inference.synthesis.service import Service

WORDS = "What the recording says."
TEXT = (
    "[pause 80ms]The old fox jumps. A lazy dog sleeps near the house.\n\n"
    "Good day! [pause 2.5s] Today the bird runs."
)
LETTERS = "The old fox jumps.A lazy dog sleeps near the house.Good day!Today the bird runs."


def slowly(until: threading.Event, text: str | None = None):
    """A guard that finds nothing, but holds up every frame, of all pieces or of one text, until told."""

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
    def make(text: str = TEXT, **options) -> Plan:
        voice = service.synthesizer.voice(prompt_file, WORDS)
        usual = {"depth": 2, "seed": 3, "piece_seconds": 2.5}
        return plan(service.synthesizer, text, voice, **{**usual, **options})

    return make


def test_it_is_the_reading_of_the_command(service: Service, planned, prompt_file: Path) -> None:
    """Sample for sample, whatever the chunks, and so are the takes that it leaves, joined."""
    delivery = Delivery(depth=2, seed=3, piece_seconds=2.5, retries=0)
    reading = read(service.synthesizer, TEXT, prompt_file, WORDS, delivery)
    for chunk_frames in (1, 7):
        stream = ReadingStream(service, planned(), chunk_frames=chunk_frames)
        progress, audio = [], []
        for part in stream:
            audio.append(part)
            progress.append(stream.piece)
        assert np.array_equal(np.concatenate(audio), reading.audio)
        assert progress == sorted(progress) and set(progress) == {0, 1, 2, 3}
    takes, rate = stream.takes, service.synthesizer.tokenizer.config.frame_rate
    assert [take.stop_reason for take in takes] == [p.stop_reason for p in reading.passages] == ["end"] * 4
    assert stream.frames == sum(len(take.codes) for take in takes) and stream.stop_reason == "end"
    whole = joined(stream.plan, takes, service.synthesizer.tokenizer)
    assert np.array_equal(whole.audio, reading.audio) and (whole.depth, whole.seed) == (2, 3)
    pauses = [0.08, *(piece.pause_seconds for piece in stream.plan.script.pieces)]
    silent = sum(round(seconds * rate) for seconds in pauses)
    assert len(whole.codes) == silent + stream.frames and round(2.5 * rate) > SILENT_FRAMES


def test_one_piece_is_the_take(service: Service, planned) -> None:
    alone = planned("Good morning.")
    stream = ReadingStream(service, alone)
    audio = np.concatenate(list(stream))
    take = service.take(alone.requests[0])
    assert alone.alone and np.array_equal(audio, take.audio)
    assert joined(alone, stream.takes, service.synthesizer.tokenizer) is stream.takes[0]
    assert alone.requests[0].seed == 3 and torch.equal(stream.takes[0].codes, take.codes)


def test_how_long_it_usually_takes(planned) -> None:
    spoken = 0.9 / 12.5 * len(LETTERS)
    assert planned().usual_seconds == pytest.approx(0.08 + spoken + 0.3 + 0.6 + 2.5)


def test_a_full_queue_refuses_the_first_piece_and_later_ones_wait(service: Service, planned) -> None:
    text = "The old fox jumps. " * 4
    refused = threading.Event()
    stream = ReadingStream(service, planned(text, piece_seconds=1.5), guard=slowly(refused))
    with pytest.raises(ValueError, match="try again later"):
        ReadingStream(service, planned())
    refused.set()
    while len(stream.takes) == 0:
        next(stream)
    # The first piece is over: somebody else takes the only slot, and the second waits for it.
    other = service.stream(planned("The old fox jumps. " * 3, piece_seconds=60.0).requests[0])
    assert len(list(stream)) > 0 and len(stream.takes) == len(stream.plan.requests)
    assert other.collect().stop_reason in ("end", "limit")


@pytest.mark.parametrize("pieces", [0, 1])
def test_closed_by_another_thread(service: Service, planned, pieces: int) -> None:
    """In the first piece or in the second: no more comes, the slot is free, and what was heard is there."""
    long = planned("The lazy dog sleeps near the old house. " * 9, piece_seconds=20.0)
    closed = threading.Event()
    stream = ReadingStream(service, long, guard=slowly(closed, long.requests[pieces].text))
    while len(stream.takes) < pieces or stream.frames == sum(len(take.codes) for take in stream.takes):
        next(stream)
    closer = threading.Thread(target=stream.close)
    closer.start()
    closer.join()
    closed.set()
    assert list(stream) == [] and stream.stop_reason == "cancelled"
    assert len(stream.takes) == pieces + 1 and stream.takes[-1].stop_reason == "cancelled"
    give_up = time.monotonic() + 20
    while service.engine.busy:
        assert time.monotonic() < give_up
    heard = joined(stream.plan, stream.takes, service.synthesizer.tokenizer)
    assert heard.seconds > 0 and heard.stop_reason == "cancelled"


def test_a_runaway_piece_is_ended_and_the_next_follows(service: Service, planned) -> None:
    def guard(request):
        return lambda codes, audio: "silence" if request.text.startswith("A lazy") else None

    stream = ReadingStream(service, planned(), guard=guard)
    for _ in stream:
        pass
    assert [take.stop_reason for take in stream.takes] == ["end", "silence", "end", "end"]
    assert len(stream.takes[1].codes) == 1 and stream.stop_reason == "silence"


def test_what_cannot_be_is_said_before_anything_is_spoken(planned) -> None:
    for text, told in (
        ("A [pause] b", "is no pause"),
        ("...", "nothing to speak"),
        ("[pause 61s] a", "too long"),
    ):
        with pytest.raises(ValueError, match=told):
            planned(text)
