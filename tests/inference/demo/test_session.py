"""A take that comes in segments is the take; stopping frees its slot; users share nothing."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cat_tts import SamplingOptions
from inference import SynthesisOptions, SynthesisResult, Synthesizer
from inference.demo.session import (
    MAX_RESULTS,
    DemoSession,
    depth_presets,
    extend_result,
    shorten,
    speak,
    wav_bytes,
)
from inference.engine.seeds import derived_seed
from inference.longform.join import extend_depth
from inference.longform.plan import SpeechPlan, plan
from inference.synthesis.service import Service
from tests.helpers.serving import slow_down, until

NEVER_STOP = SamplingOptions(decision_temperature=0)
TWO_SEGMENTS = "Good morning. [pause 0.4s] It is late."


@pytest.fixture(scope="module")
def service(bundle: Path) -> Iterator[Service]:
    with Service(Synthesizer.from_pretrained(bundle, device="cpu"), slots=2) as service:
        yield service


@pytest.fixture
def plan_of(service: Service, prompt_file: Path):
    voice = service.models.load_voice(prompt_file, "What it says.")

    def make(
        seconds: float | None = 2.5, depth: int = 3, seed: int = 0, text: str = "Good morning."
    ) -> SpeechPlan:
        options = SynthesisOptions(depth=depth, seed=seed, max_seconds=seconds, sampling=NEVER_STOP)
        return plan(service.models, text, voice, options)

    return make


def begin() -> DemoSession:
    session = DemoSession()
    session.begin()
    return session


def single_result(service: Service, planned: SpeechPlan, text: str) -> SynthesisResult:
    """What Python's `synthesize` makes of a plan."""
    synthesizer = service.models
    assert isinstance(synthesizer, Synthesizer)
    return synthesizer.synthesize(text, planned.requests[0].voice, planned.options)


def test_a_take_of_one_segment_comes_in_one_chunk(service: Service, plan_of) -> None:
    session = begin()
    (chunk,) = speak(service, plan_of(), session)
    assert (len(chunk.audio) // 1920, round(chunk.seconds, 2), chunk.segment) == (32, 2.56, 0)
    (result,) = session.results
    assert np.array_equal(chunk.audio, result.whole.audio)
    assert np.array_equal(chunk.audio, single_result(service, plan_of(), "Good morning.").audio)
    assert 0 < result.timing.first_seconds == chunk.timing.first_seconds <= result.timing.seconds
    assert result.text == "Good morning." and not result.extended
    assert result.name == "take-1-depth-3-seed-0"


def test_chunks_are_the_take_segment_by_segment(service: Service, plan_of) -> None:
    session, planned = begin(), plan_of(text=TWO_SEGMENTS)
    chunks = list(speak(service, planned, session))
    (result,) = session.results
    audio = np.concatenate([chunk.audio for chunk in chunks])
    assert np.array_equal(audio, result.whole.audio) and len(audio) > 2 * 24_000
    assert np.array_equal(audio, single_result(service, planned, TWO_SEGMENTS).audio)
    numbers, seconds = [chunk.segment for chunk in chunks], [chunk.seconds for chunk in chunks]
    assert numbers == sorted(numbers) and set(numbers) == {0, 1}
    assert seconds == sorted(seconds) and seconds[-1] == pytest.approx(result.whole.seconds)
    times = [chunk.timing.seconds for chunk in chunks]
    assert times == sorted(times) and 0 < result.timing.first_seconds <= times[0]
    assert {chunk.timing.first_seconds for chunk in chunks} == {result.timing.first_seconds}
    assert len(result.whole.segments) == 2


def test_a_segment_that_fails_is_tried_again(
    service: Service, plan_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a length limit of the user's, a take that does not end has failed: nobody hears the first two
    attempts if the third is better."""
    session, planned = begin(), plan_of(seconds=None)
    (chunk,) = speak(service, planned, session)
    whole, expected = session.results[0].whole, single_result(service, planned, "Good morning.")
    assert (whole.attempts, whole.acceptable, whole.stop_reason) == (3, False, "limit")
    assert np.array_equal(chunk.audio, whole.audio) and np.array_equal(whole.audio, expected.audio)
    scores = iter([-2.5, -2.0, -0.25])
    monkeypatch.setattr("inference.synthesis.attempts.intelligibility", lambda *_: next(scores))
    (chunk,) = speak(service, plan_of(), session)
    whole, request = session.results[1].whole, plan_of().requests[0]
    third = service.stream(request.changed(seed=derived_seed(0, 2))).collect()
    assert (whole.attempts, whole.acceptable, whole.intelligibility) == (3, True, -0.25)
    assert session.results[1].seed == 0 != whole.seed and session.results[1].name.endswith("-seed-0")
    assert np.array_equal(chunk.audio, third.audio)


def test_stop_between_segments_keeps_what_was_spoken(service: Service, plan_of) -> None:
    session, planned = begin(), plan_of(text=TWO_SEGMENTS)
    chunks = speak(service, planned, session)
    first = next(chunks)
    session.stop()
    audio = np.concatenate([first.audio, *(chunk.audio for chunk in chunks)])
    (result,) = session.results
    assert result.whole.stop_reason == "cancelled" and len(result.whole.segments) == 1
    assert np.array_equal(result.whole.audio[: len(audio)], audio)
    assert not service.engine.busy


def test_stop_in_the_middle_of_a_segment_frees_its_slot(
    service: Service, plan_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has heard it, so that no take is left."""
    slow_down(service.engine, monkeypatch)
    session, audio = begin(), []
    reader = threading.Thread(
        target=lambda: audio.extend(chunk.audio for chunk in speak(service, plan_of(60.0), session))
    )
    reader.start()
    until(lambda: session.stream is not None and service.engine.active == 1)
    session.stop()
    reader.join(10)
    assert not reader.is_alive() and audio == [] and session.results == []
    until(lambda: not service.engine.busy)


def test_stop_before_the_first_chunk_leaves_no_take(service: Service, plan_of) -> None:
    session = begin()
    session.stop()
    assert list(speak(service, plan_of(), session)) == [] and session.results == []
    session.begin()
    assert len(list(speak(service, plan_of(0.4), session))) == 1


def test_leaving_early_begins_no_further_segment(service: Service, plan_of) -> None:
    session = begin()
    chunks = speak(service, plan_of(text=TWO_SEGMENTS), session)
    next(chunks)
    chunks.close()
    assert session.results == [] and not service.engine.busy


def test_two_users_at_once(service: Service, plan_of) -> None:
    sessions = [begin(), begin()]
    readers = [speak(service, plan_of(seed=seed, text=TWO_SEGMENTS), sessions[seed]) for seed in (0, 1)]
    first = [next(reader) for reader in readers]
    for reader in readers:
        assert {chunk.segment for chunk in reader} == {0, 1}
    assert not np.array_equal(first[0].audio, first[1].audio)
    assert [[result.whole.seed for result in session.results] for session in sessions] == [[0], [1]]


@pytest.mark.parametrize("text", ["Good morning.", TWO_SEGMENTS])
def test_a_deeper_take_keeps_its_codes_and_its_reason(service: Service, plan_of, text: str) -> None:
    session = begin()
    list(speak(service, plan_of(0.8, text=text), session))
    shallow = session.results[0].whole
    extend_result(service, session.results[0], session)
    result = session.results[-1]
    assert result.whole.depth == 6 and result.whole.stop_reason == shallow.stop_reason == "limit"
    for deep, part in zip(result.whole.parts, shallow.parts, strict=True):
        assert (deep.codes[:, :3] == part.codes).all()
    assert result.extended and result.name == "take-2-depth-6-seed-0"
    cut = extend_depth(service, shallow, 1)
    for flat, part in zip(cut.parts, shallow.parts, strict=True):
        assert (flat.codes == part.codes[:, :1]).all()
    assert cut.stop_reason == shallow.stop_reason


def test_a_session_remembers_the_last_takes(service: Service, plan_of) -> None:
    take, session = service.stream(plan_of(0.2).requests[0]).collect(), begin()
    list(speak(service, plan_of(0.2), session))
    timing = session.results[0].timing
    for _ in range(MAX_RESULTS):
        session.add(plan_of(0.2), take, timing)
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
