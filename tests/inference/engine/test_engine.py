"""Continuous batching: results do not depend on the rest of the batch, and errors stay with their request."""

import gc
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cat_tts import Continuation, SamplingOptions
from inference import Request, SynthesisResult, Synthesizer, Voice
from inference.engine.engine import Engine, EngineBusy, EngineDead
from inference.engine.job import Guard, RequestHandle
from inference.engine.options import SynthesisOptions
from inference.synthesis.runner import LocalRunner

PROMPT_TEXT = "What the recording says."
TEXTS = ["Good morning, old fox.", "Hi.", "The lazy dog sleeps under the old tree.", "Tomorrow."]
SAMPLINGS = [
    SamplingOptions(),
    SamplingOptions(temperature=0.8, top_k=20, top_p=0.9, repetition_penalty=1.2),
    SamplingOptions(temperature=0.0),
]


@pytest.fixture
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture
def voices(synthesizer: Synthesizer, voice: np.ndarray) -> list[Voice]:
    prompts = [voice, voice[::-1], np.tile(voice, 2)]
    return [synthesizer.load_voice((prompt, 24_000), PROMPT_TEXT) for prompt in prompts]


def engine_of(synthesizer: Synthesizer, slots: int, waiting: int = 32) -> Engine:
    return Engine(synthesizer.tts, synthesizer.tokenizer, slots=slots, waiting=waiting)


def request(synthesizer: Synthesizer, voices: list[Voice], number: int) -> Request:
    """Return a request with its own text, voice, depth, seed, sampling and length for every number."""
    return synthesizer.request(
        TEXTS[number % 4],
        voices[number % 3],
        SynthesisOptions(
            depth=1 + number % 6,
            seed=number,
            sampling=SAMPLINGS[number % 3],
            max_seconds=0.16 * (1 + number % 7),
        ),
    )


def submit(
    engine: Engine, synthesizer: Synthesizer, wanted: Request, guard: Guard | None = None
) -> RequestHandle:
    return engine.submit(synthesizer.job(wanted, guard))


def finish(engine: Engine) -> None:
    while engine.busy:
        engine.step()


def same(handle: RequestHandle, result: SynthesisResult, frames: int | None = None) -> None:
    """Assert that a handle has the codes and the audio of a result, or of its first frames."""
    frames = len(result.codes) if frames is None else frames
    assert torch.equal(torch.stack(handle.codes), result.codes[:frames])
    np.testing.assert_allclose(np.concatenate(handle.audio), result.audio[: frames * 1920], atol=1e-5, rtol=0)


@pytest.mark.parametrize("slots", [2, 3, 8])
def test_batched_results_equal_single_ones_with_joins_and_leaves(
    synthesizer: Synthesizer, voices: list[Voice], slots: int
) -> None:
    """Twelve requests arrive while others run, one is cancelled, and each gives its single result."""
    wanted = [request(synthesizer, voices, number) for number in range(12)]
    separate = [LocalRunner(synthesizer).stream(each).collect() for each in wanted]
    assert len({len(result.codes) for result in separate}) > 4 and {t.stop_reason for t in separate} == {
        "end",
        "limit",
    }
    engine, handles, shared, broken = engine_of(synthesizer, slots), list[RequestHandle](), 0, 6
    for each in wanted:
        handles.append(submit(engine, synthesizer, each))
        engine.step()
        shared = max(shared, engine.active)
        if len(handles[broken : broken + 1]) and len(handles[broken].audio) == 2:
            handles[broken].cancel()
    while engine.busy:
        engine.step()
        if len(handles[broken].audio) == 2:
            handles[broken].cancel()
    assert shared == min(slots, shared) > 1, "no batch was shared"
    for number, (handle, result) in enumerate(zip(handles, separate, strict=True)):
        if number == broken:
            assert handle.stop_reason == "cancelled" and len(result.codes) > 2
            same(handle, result, 2)
        else:
            assert handle.stop_reason == result.stop_reason
            same(handle, result)


def test_results_beyond_the_window_of_the_audio_decoder(
    synthesizer: Synthesizer, voices: list[Voice]
) -> None:
    """A request of 12 s, longer than the window of 10 s, is joined by another in the middle."""
    slow = SamplingOptions(decision_temperature=0)
    long, short = (
        synthesizer.request(
            TEXTS[0], voices[0], SynthesisOptions(depth=2, seed=seed, sampling=slow, max_seconds=seconds)
        )
        for seed, seconds in ((1, 12.0), (2, 3.0))
    )
    engine = engine_of(synthesizer, 2)
    first = submit(engine, synthesizer, long)
    for _ in range(120):
        engine.step()
    second = submit(engine, synthesizer, short)
    finish(engine)
    same(first, LocalRunner(synthesizer).stream(long).collect())
    same(second, LocalRunner(synthesizer).stream(short).collect())
    assert len(first.audio) == 150 and len(second.audio) == 38


def test_a_cancelled_request_frees_its_slot_before_the_next_frame(
    synthesizer: Synthesizer, voices: list[Voice]
) -> None:
    engine = engine_of(synthesizer, 1)
    first, second, third = (submit(engine, synthesizer, request(synthesizer, voices, n)) for n in (6, 9, 20))
    engine.step()
    assert (engine.active, engine.queued, len(first.audio), len(second.audio)) == (1, 2, 1, 0)
    first.cancel()
    third.cancel()
    engine.step()
    assert (engine.active, engine.queued, len(first.audio), len(second.audio)) == (1, 0, 1, 1)
    assert (first.stop_reason, second.stop_reason, third.stop_reason) == ("cancelled", None, "cancelled")
    finish(engine)
    assert second.stop_reason in ("end", "limit") and third.audio == []


def test_a_full_queue(synthesizer: Synthesizer, voices: list[Voice]) -> None:
    engine = engine_of(synthesizer, 2, waiting=1)
    wanted = [request(synthesizer, voices, number) for number in (6, 20, 5, 4)]
    for each in wanted[:3]:
        submit(engine, synthesizer, each)
    with pytest.raises(EngineBusy, match=r"^0 requests are running, 3 wait: try again later"):
        submit(engine, synthesizer, wanted[3])
    engine.step()
    with pytest.raises(EngineBusy, match=r"^2 requests are running, 1 wait: try again later"):
        submit(engine, synthesizer, wanted[3])
    while engine.queued:
        engine.step()
    handle = submit(engine, synthesizer, wanted[3])
    finish(engine)
    same(handle, LocalRunner(synthesizer).stream(wanted[3]).collect())


def test_a_request_whose_prompt_is_processed_counts_once(
    synthesizer: Synthesizer, voices: list[Voice], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after it joins the batch, there is room for the one other request and no more."""
    engine, wanted = engine_of(synthesizer, 1, waiting=1), request(synthesizer, voices, 6)
    join, rooms = engine._decoder.join, []

    def watched(continuation: Continuation, handle: RequestHandle) -> None:
        engine.check_room()
        join(continuation, handle)
        engine.check_room()
        rooms.append(engine.queued)

    monkeypatch.setattr(engine._decoder, "join", watched)
    first = submit(engine, synthesizer, wanted)
    engine.step()
    assert rooms == [0] and (first.error, engine.handles) == (None, [first])
    submit(engine, synthesizer, wanted)
    with pytest.raises(EngineBusy, match=r"^1 requests are running, 1 wait"):
        engine.check_room()


def test_a_request_ends_where_its_forced_codes_do(synthesizer: Synthesizer, voices: list[Voice]) -> None:
    codes = torch.randint(synthesizer.tts.config.codebook_size, (3, 2))
    wanted = replace(request(synthesizer, voices, 6).changed(depth=4), forced_codes=codes, max_frames=9)
    handle = submit(engine := engine_of(synthesizer, 2), synthesizer, wanted)
    finish(engine)
    assert handle.stop_reason == "limit" and torch.equal(torch.stack(handle.codes)[:, :2], codes)


@pytest.mark.parametrize(("slots", "waiting"), [(0, 1), (1, -1)])
def test_invalid_engine_sizes(synthesizer: Synthesizer, slots: int, waiting: int) -> None:
    with pytest.raises(ValueError, match=f"^slots={slots}, waiting={waiting}: give"):
        engine_of(synthesizer, slots, waiting)


def test_an_error_of_one_job_does_not_concern_others(synthesizer: Synthesizer, voices: list[Voice]) -> None:
    def guard(codes: torch.Tensor, audio: np.ndarray) -> None:
        raise ZeroDivisionError("of the guard")

    wanted = request(synthesizer, voices, 6)
    engine = engine_of(synthesizer, 4)
    good = submit(engine, synthesizer, wanted)
    engine.step()
    bad = submit(engine, synthesizer, replace(wanted, max_frames=0))
    worse = submit(engine, synthesizer, wanted, guard)
    finish(engine)
    assert isinstance(bad.error, ValueError) and "max_frames=0" in str(bad.error)
    assert isinstance(worse.error, ZeroDivisionError) and len(worse.audio) == 1
    same(good, LocalRunner(synthesizer).stream(wanted).collect())


def breaking(*_: object) -> torch.Tensor:
    raise RuntimeError("out of memory")


def test_an_error_of_the_batch_ends_the_running_requests(
    synthesizer: Synthesizer, voices: list[Voice], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audio decoder fails and works again: running requests fail, and the next ones succeed."""
    wanted = [request(synthesizer, voices, number) for number in (6, 20, 5)]
    separate = LocalRunner(synthesizer).stream(wanted[2]).collect()
    engine, stage = engine_of(synthesizer, 2), synthesizer.tokenizer.decoder[1]
    first, second, third = (submit(engine, synthesizer, each) for each in wanted)
    engine.step()
    monkeypatch.setattr(stage, "forward", breaking)
    engine.step()
    assert isinstance(first.error, RuntimeError) and first.error is second.error
    assert (len(first.audio), engine.active, engine.queued, third.error) == (1, 0, 1, None)
    monkeypatch.undo()
    finish(engine)
    same(third, separate)


def test_an_engine_that_cannot_restart_is_dead(
    synthesizer: Synthesizer, voices: list[Voice], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [request(synthesizer, voices, number) for number in (6, 20)]
    engine = engine_of(synthesizer, 1)
    first, second = (submit(engine, synthesizer, each) for each in wanted)
    engine.step()
    monkeypatch.setattr(synthesizer.tokenizer.decoder[1], "forward", breaking)
    synthesizer.tts.depth.code_heads[0].weight = nn.Parameter(torch.zeros(3))
    engine.step()
    assert isinstance(first.error, RuntimeError) and second.error is engine.fault
    assert not engine.busy
    with pytest.raises(EngineDead, match=r"^the engine stopped for good: "):
        submit(engine, synthesizer, wanted[0])


def living() -> tuple[int, int]:
    """Count the tensors in memory, and their bytes."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    return len(tensors), sum(tensor.nbytes for tensor in tensors)


def test_200_requests_leave_nothing_behind(synthesizer: Synthesizer, voices: list[Voice]) -> None:
    """Lengths, depths, times and cancellations are random; memory is constant once the caches are full."""
    engine, rng, handles, counts = engine_of(synthesizer, 4, waiting=4), random.Random(0), [], []
    outcomes: list[str | None] = []
    for depth in range(1, 7):
        for results in range(1, 5):
            for number in range(results):
                one = synthesizer.request(
                    "Hi.", voices[number % 3], SynthesisOptions(depth=depth, max_seconds=0.08)
                )
                submit(engine, synthesizer, one)
            finish(engine)
    for number in range(200):
        wanted = synthesizer.request(
            rng.choice(TEXTS),
            rng.choice(voices),
            SynthesisOptions(
                depth=rng.randint(1, 6),
                seed=number,
                sampling=rng.choice(SAMPLINGS),
                max_seconds=rng.uniform(0.08, 0.8),
            ),
        )
        while engine.queued >= engine.waiting:
            engine.step()
        handles.append(submit(engine, synthesizer, wanted))
        for _ in range(rng.randint(0, 2)):
            engine.step()
        if rng.random() < 0.3:
            rng.choice(handles).cancel()
        if number % 50 == 49:
            finish(engine)
            assert all(handle.ended and handle.error is None for handle in handles)
            outcomes += [handle.stop_reason for handle in handles]
            handles.clear()
            submit(engine, synthesizer, request(synthesizer, voices, 6))  # the last one leaves its tables
            finish(engine)
            counts.append(living())
    assert len(outcomes) == 200 and set(outcomes) == {"end", "limit", "cancelled"}
    tensors, sizes = zip(*counts[1:], strict=True)
    assert len(set(tensors)) == 1 and max(sizes) - min(sizes) < 20_000, "a second of audio is 96,000 bytes"
