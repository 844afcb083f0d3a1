"""A take that is streamed in chunks is the take; stopping frees its slot; users share nothing."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cat_tts import SamplingOptions
from inference import Synthesizer
from inference.demo.session import (
    MAX_RESULTS,
    DemoSession,
    at_other_depth,
    depth_presets,
    extend_result,
    shorten,
    speak,
    wav_bytes,
)
from inference.longform.plan import LongFormPlan, plan
from inference.synthesis.service import Service

NEVER_STOP = SamplingOptions(decision_temperature=0)


@pytest.fixture(scope="module")
def service(bundle: Path) -> Iterator[Service]:
    with Service(Synthesizer.from_pretrained(bundle, device="cpu"), slots=2) as service:
        yield service


@pytest.fixture
def plan_of(service: Service, prompt_file: Path):
    def make(seconds: float = 2.5, depth: int = 3, seed: int = 0) -> LongFormPlan:
        return plan(
            service.synthesizer,
            "Good morning.",
            service.synthesizer.voice(prompt_file, "What it says."),
            depth=depth,
            seed=seed,
            max_seconds=seconds,
            sampling=NEVER_STOP,
        )

    return make


def begin() -> DemoSession:
    session = DemoSession()
    session.begin()
    return session


def test_chunks_are_the_take(service: Service, plan_of) -> None:
    session = begin()
    segments = list(speak(service, plan_of(), session))
    assert [len(segment.audio) // 1920 for segment in segments] == [6, 12, 12, 2]
    assert [round(segment.seconds, 2) for segment in segments] == [0.48, 1.44, 2.4, 2.56]
    (result,) = session.results
    assert np.array_equal(np.concatenate([segment.audio for segment in segments]), result.whole.audio)
    assert np.array_equal(
        result.whole.audio, service.synthesizer.start(plan_of().requests[0]).collect().audio
    )
    times = [segment.timing.seconds for segment in segments]
    assert times == sorted(times) and 0 < result.timing.first_seconds <= times[0]
    assert result.text == "Good morning." and not result.extended
    assert result.name == "take-1-depth-3-seed-0"


def test_stop_ends_the_take_and_frees_its_slot(service: Service, plan_of) -> None:
    session = begin()
    segments = speak(service, plan_of(seconds=60.0), session)
    first = next(segments)
    session.stop()
    assert list(segments) == []
    assert session.results[0].whole.stop_reason == "cancelled"
    assert np.array_equal(session.results[0].whole.audio, first.audio)
    service.synthesize(plan_of(seconds=0.2).requests[0])  # by then the engine has freed the slot
    assert service.engine.active == 0


def test_stop_from_another_thread(service: Service, plan_of) -> None:
    session, audio = begin(), []
    reader = threading.Thread(
        target=lambda: audio.extend(p.audio for p in speak(service, plan_of(60.0), session))
    )
    reader.start()
    while not audio:
        reader.join(0.01)
    session.stop()
    reader.join(30)
    assert not reader.is_alive() and session.results[0].whole.stop_reason == "cancelled"


def test_stop_before_the_first_chunk_leaves_no_take(service: Service, plan_of) -> None:
    session = begin()
    session.stop()
    assert list(speak(service, plan_of(), session)) == [] and session.results == []
    session.begin()
    assert len(list(speak(service, plan_of(0.4), session))) == 1


def test_leaving_early_frees_the_slot(service: Service, plan_of) -> None:
    segments = speak(service, plan_of(seconds=60.0), begin())
    next(segments)
    segments.close()
    service.synthesize(plan_of(seconds=0.2).requests[0])
    assert service.engine.active == 0


def test_two_users_at_once(service: Service, plan_of) -> None:
    sessions = [begin(), begin()]
    readers = [speak(service, plan_of(seed=seed), sessions[seed]) for seed in (0, 1)]
    first = [next(reader) for reader in readers]
    for reader in readers:
        assert len(list(reader)) == 3
    assert not np.array_equal(first[0].audio, first[1].audio)
    assert [[result.whole.seed for result in session.results] for session in sessions] == [[0], [1]]


def test_a_deeper_take_keeps_its_codes_and_its_reason(service: Service, plan_of) -> None:
    session = begin()
    list(speak(service, plan_of(0.8), session))
    shallow = session.results[0].whole
    extend_result(service, session.results[0], session)
    result = session.results[-1]
    assert result.whole.depth == 6 and (result.whole.codes[:, :3] == shallow.codes).all()
    assert result.extended and result.name == "take-2-depth-6-seed-0"
    assert at_other_depth(service, shallow, 3) is shallow
    cut = at_other_depth(service, shallow, 1)
    assert (cut.codes == shallow.codes[:, :1]).all() and cut.stop_reason == shallow.stop_reason


def test_a_session_remembers_the_last_takes(service: Service, plan_of) -> None:
    take, session = service.synthesize(plan_of(0.2).requests[0]), begin()
    list(speak(service, plan_of(0.2), session))
    timing = session.results[0].timing
    for _ in range(MAX_RESULTS):
        session.add(plan_of(0.2), [take], take, timing)
    assert [result.number for result in session.results] == list(range(2, MAX_RESULTS + 2))
    two = session.find(2)
    assert two is not None and two.number == 2
    assert (session.find(1), session.find(None)) == (None, None)


def test_presets() -> None:
    assert depth_presets(32) == {"fast": 8, "balanced": 16, "full": 32}
    assert depth_presets(1) == {"fast": 1, "balanced": 1, "full": 1}


def test_shortened() -> None:
    assert shorten("a  b\nc") == "a b c"
    assert shorten("x" * 41) == "x" * 37 + "..." and len(shorten("x" * 40)) == 40


def test_wav_bytes_keep_the_level() -> None:
    audio = np.array([0.0, 0.25, -0.001], np.float32)
    samples, rate = soundfile.read(io.BytesIO(wav_bytes(audio, 24_000)), dtype="int16")
    assert rate == 24_000 and samples.tolist() == [0, 8192, -33]
