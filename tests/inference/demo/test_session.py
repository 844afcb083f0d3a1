"""A take that is spoken piece by piece is the take; stopping frees its place; visitors share nothing."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cat_tts import SamplingOptions
from inference import Synthesizer
from inference.demo.session import MOST_TAKES, Session, deepen, presets, remade, shortened, speak, wav_bytes
from inference.longform.plan import Plan, plan
from inference.synthesis.service import Service

NEVER_STOP = SamplingOptions(decision_temperature=0)


@pytest.fixture(scope="module")
def service(bundle: Path) -> Iterator[Service]:
    with Service(Synthesizer.from_pretrained(bundle, device="cpu"), slots=2) as service:
        yield service


@pytest.fixture
def plan_of(service: Service, prompt_file: Path):
    def make(seconds: float = 2.5, depth: int = 3, seed: int = 0) -> Plan:
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


def begun() -> Session:
    session = Session()
    session.begin()
    return session


def test_pieces_are_the_take(service: Service, plan_of) -> None:
    session = begun()
    pieces = list(speak(service, plan_of(), session))
    assert [len(piece.audio) // 1920 for piece in pieces] == [6, 12, 12, 2]
    assert [round(piece.seconds, 2) for piece in pieces] == [0.48, 1.44, 2.4, 2.56]
    (kept,) = session.takes
    assert np.array_equal(np.concatenate([piece.audio for piece in pieces]), kept.take.audio)
    assert np.array_equal(kept.take.audio, service.synthesizer.start(plan_of().requests[0]).collect().audio)
    times = [piece.timing.seconds for piece in pieces]
    assert times == sorted(times) and 0 < kept.timing.first_seconds <= times[0]
    assert kept.text == "Good morning." and not kept.mastered
    assert kept.name == "take-1-depth-3-seed-0"


def test_stop_ends_the_take_and_frees_its_slot(service: Service, plan_of) -> None:
    session = begun()
    pieces = speak(service, plan_of(seconds=60.0), session)
    first = next(pieces)
    session.stop()
    assert list(pieces) == []
    assert session.takes[0].take.stop_reason == "cancelled"
    assert np.array_equal(session.takes[0].take.audio, first.audio)
    service.take(plan_of(seconds=0.2).requests[0])  # by then the engine has swept
    assert service.engine.active == 0


def test_stop_from_another_thread(service: Service, plan_of) -> None:
    session, audio = begun(), []
    reader = threading.Thread(
        target=lambda: audio.extend(p.audio for p in speak(service, plan_of(60.0), session))
    )
    reader.start()
    while not audio:
        reader.join(0.01)
    session.stop()
    reader.join(30)
    assert not reader.is_alive() and session.takes[0].take.stop_reason == "cancelled"


def test_stop_before_the_first_piece_leaves_no_take(service: Service, plan_of) -> None:
    session = begun()
    session.stop()
    assert list(speak(service, plan_of(), session)) == [] and session.takes == []
    session.begin()
    assert len(list(speak(service, plan_of(0.4), session))) == 1


def test_leaving_early_frees_the_slot(service: Service, plan_of) -> None:
    pieces = speak(service, plan_of(seconds=60.0), begun())
    next(pieces)
    pieces.close()
    service.take(plan_of(seconds=0.2).requests[0])
    assert service.engine.active == 0


def test_two_visitors_at_once(service: Service, plan_of) -> None:
    sessions = [begun(), begun()]
    readers = [speak(service, plan_of(seed=seed), sessions[seed]) for seed in (0, 1)]
    first = [next(reader) for reader in readers]
    for reader in readers:
        assert len(list(reader)) == 3
    assert not np.array_equal(first[0].audio, first[1].audio)
    assert [[kept.take.seed for kept in session.takes] for session in sessions] == [[0], [1]]


def test_a_deeper_take_keeps_its_codes_and_its_reason(service: Service, plan_of) -> None:
    session = begun()
    list(speak(service, plan_of(0.8), session))
    draft = session.takes[0].take
    deepen(service, session.takes[0], session)
    kept = session.takes[-1]
    assert kept.take.depth == 6 and (kept.take.codes[:, :3] == draft.codes).all()
    assert kept.mastered and kept.name == "take-2-depth-6-seed-0"
    assert remade(service, draft, 3) is draft
    shallow = remade(service, draft, 1)
    assert (shallow.codes == draft.codes[:, :1]).all() and shallow.stop_reason == draft.stop_reason


def test_a_session_remembers_the_last_takes(service: Service, plan_of) -> None:
    take, session = service.take(plan_of(0.2).requests[0]), begun()
    list(speak(service, plan_of(0.2), session))
    timing = session.takes[0].timing
    for _ in range(MOST_TAKES):
        session.keep(plan_of(0.2), [take], take, timing)
    assert [kept.number for kept in session.takes] == list(range(2, MOST_TAKES + 2))
    two = session.take(2)
    assert two is not None and two.number == 2
    assert (session.take(1), session.take(None)) == (None, None)


def test_presets() -> None:
    assert presets(32) == {"draft": 8, "balanced": 16, "master": 32}
    assert presets(1) == {"draft": 1, "balanced": 1, "master": 1}


def test_shortened() -> None:
    assert shortened("a  b\nc") == "a b c"
    assert shortened("x" * 41) == "x" * 37 + "..." and len(shortened("x" * 40)) == 40


def test_wav_bytes_keep_the_level() -> None:
    audio = np.array([0.0, 0.25, -0.001], np.float32)
    samples, rate = soundfile.read(io.BytesIO(wav_bytes(audio, 24_000)), dtype="int16")
    assert rate == 24_000 and samples.tolist() == [0, 8192, -33]
