"""Attempts: seeds, retries, best-of-N, what is told, and how it is stopped."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cat_tts.asr import config as asr_config
from cat_tts.asr.model import CatASR
from inference import Request, RetryPolicy, SynthesisOptions, SynthesisResult, Synthesizer
from inference.engine.engine import EngineBusy
from inference.engine.seeds import derived_seed
from inference.synthesis.attempts import Attempts, watch_for_runaways
from inference.synthesis.quality import intelligibility, is_acceptable, score
from inference.synthesis.runner import LocalRunner
from inference.synthesis.service import Service

PROMPT_TEXT = "What the recording says."
TEXTS = ["Dogs sleep.", "A red fox.", "The young dog.", "go"]


@pytest.fixture(scope="module")
def synthesizer(unreliable: Synthesizer) -> Synthesizer:
    return unreliable


@pytest.fixture(scope="module")
def requests(synthesizer: Synthesizer, prompt_file: Path) -> list[Request]:
    voice = synthesizer.load_voice(prompt_file, PROMPT_TEXT)
    options = SynthesisOptions(depth=2)
    seeded = [(text, seed) for seed in (0, 3) for text in TEXTS]
    return [synthesizer.request(text, voice, replace(options, seed=seed)) for text, seed in seeded]


def single_result(synthesizer: Synthesizer, request: Request) -> SynthesisResult:
    return LocalRunner(synthesizer).stream(request, guard=watch_for_runaways(request)).collect()


def expected(synthesizer: Synthesizer, request: Request, retries: int) -> SynthesisResult:
    """Try one after the other, without the code under test."""
    results: list[SynthesisResult] = []
    for attempt in range(1 + retries):
        result = single_result(synthesizer, request.changed(seed=derived_seed(request.seed, attempt)))
        results.append(replace(result, acceptable=is_acceptable(result), attempts=attempt + 1))
        if results[-1].acceptable:
            return results[-1]
    return replace(max(results, key=score), attempts=len(results))


def same(result: SynthesisResult, other: SynthesisResult) -> None:
    names = ("seed", "stop_reason", "attempts", "acceptable", "depth")
    assert [getattr(result, name) for name in names] == [getattr(other, name) for name in names]
    assert torch.equal(result.codes, other.codes)
    np.testing.assert_allclose(result.audio, other.audio, atol=1e-5, rtol=0)


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("retries", [0, 2])
def test_failed_attempts_are_repeated_with_other_seeds(
    synthesizer: Synthesizer, requests: list[Request], retries: int, slots: int
) -> None:
    """Together or one by one; the first that is accepted is taken, else the best."""
    results = Attempts(LocalRunner(synthesizer, slots), RetryPolicy(retries=retries)).run(requests)
    for result, request in zip(results, requests, strict=True):
        same(result, expected(synthesizer, request, retries))
    attempts = {result.attempts for result in results}
    assert len(attempts) > 1 if retries else attempts == {1}
    assert not all(result.acceptable for result in results)


def test_a_service_runs_the_same_attempts(synthesizer: Synthesizer, requests: list[Request]) -> None:
    with Service(synthesizer, slots=2, waiting=1) as service:  # most requests wait for room
        results = Attempts(service, RetryPolicy(retries=1)).run(requests)
    for result, request in zip(results, requests, strict=True):
        same(result, expected(synthesizer, request, 1))


def test_the_best_candidate_is_extended(synthesizer: Synthesizer, requests: list[Request]) -> None:
    """It keeps its codes, seed and end; deeper codes are those of `extend_depth`."""
    policy = RetryPolicy(retries=0, candidates=3, candidate_depth=1)
    results = Attempts(LocalRunner(synthesizer, 3), policy).run(requests[:4])
    for result, request in zip(results, requests, strict=False):
        candidates = [
            single_result(synthesizer, request.changed(depth=1, seed=derived_seed(request.seed, n)))
            for n in range(3)
        ]
        best = max(candidates, key=score)
        extended = synthesizer.extend_depth(best, 2)
        assert (result.seed, result.stop_reason, result.depth) == (best.seed, best.stop_reason, 2)
        assert torch.equal(result.codes, extended.codes)
        np.testing.assert_allclose(result.audio, extended.audio, atol=1e-5, rtol=0)
    assert any(result.seed != request.seed for result, request in zip(results, requests, strict=False))


def test_a_candidate_that_was_not_wholly_extended_is_cancelled(
    synthesizer: Synthesizer, requests: list[Request]
) -> None:
    """It had ended by itself, but what is returned of it has not."""
    begun: list[int] = []

    def close_in_the_extension(attempt: int, frames: int) -> None:
        begun.append(frames)
        if frames == 1 and begun.count(0) == 2:
            attempts.close()

    policy = RetryPolicy(candidates=2, candidate_depth=1)
    ended = next(r for r in requests if single_result(synthesizer, r.changed(depth=1)).stop_reason == "end")
    whole = Attempts(LocalRunner(synthesizer, 2), replace(policy, retries=0)).run([ended])[0]
    attempts = Attempts(LocalRunner(synthesizer, 2), policy, on_frame=close_in_the_extension)
    (result,) = attempts.run([ended])
    assert whole.stop_reason == "end" and len(whole.codes) > 1
    assert (result.stop_reason, len(result.codes), result.acceptable) == ("cancelled", 1, False)
    assert torch.equal(result.codes, whole.codes[:1]) and result.attempts == 1


def test_candidates_at_full_depth_are_not_extended(synthesizer: Synthesizer, requests: list[Request]) -> None:
    (result,) = Attempts(
        LocalRunner(synthesizer, 2), RetryPolicy(retries=0, candidates=2, candidate_depth=99)
    ).run(requests[:1])
    seeds = [requests[0].seed, derived_seed(requests[0].seed, 1)]
    best = max((single_result(synthesizer, requests[0].changed(seed=seed)) for seed in seeds), key=score)
    assert torch.equal(result.codes, best.codes) and result.seed == best.seed


def test_a_recognizer_decides_too(
    synthesizer: Synthesizer, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ended but is not recognised is tried again, and the result tells how it scored."""
    monkeypatch.setattr("inference.synthesis.quality.MIN_INTELLIGIBILITY", 10.0)
    torch.manual_seed(0)
    parts = synthesizer.tts, synthesizer.text_tokenizer, synthesizer.tokenizer
    listening = Synthesizer(*parts, asr_model=CatASR(asr_config.tiny()).eval())
    ended = next(r for r in requests if single_result(synthesizer, r).stop_reason == "end")
    (result,) = Attempts(LocalRunner(listening), RetryPolicy(retries=2)).run([ended])
    assert result.attempts == 3 and not result.acceptable
    assert result.intelligibility == intelligibility(listening.asr_model, result)


def test_progress_and_interruption(synthesizer: Synthesizer, requests: list[Request]) -> None:
    reported: list[tuple[int, int]] = []

    def give_up(attempt: int, frames: int) -> None:
        reported.append((attempt, frames))
        if frames == 3:
            raise KeyboardInterrupt

    runner = LocalRunner(synthesizer, 4)
    with pytest.raises(KeyboardInterrupt):
        Attempts(runner, RetryPolicy(), on_frame=give_up).run(requests[:4])
    assert reported == [(0, 0), (0, 1), (0, 2), (0, 3)] and not runner.engine.busy


def test_closed_from_another_thread(synthesizer: Synthesizer, requests: list[Request]) -> None:
    """What runs is cancelled, and nothing is tried again."""
    with Service(synthesizer, slots=2) as service:
        begun = threading.Event()
        attempts = Attempts(
            service, RetryPolicy(retries=5), on_frame=lambda attempt, frames: frames == 1 and begun.set()
        )
        results: list[SynthesisResult] = []
        slow = [replace(request, min_frames=600, max_frames=700) for request in requests[:2]]
        thread = threading.Thread(target=lambda: results.extend(attempts.run(slow)))
        thread.start()
        assert begun.wait(30)
        attempts.close()
        thread.join(30)
        assert [result.stop_reason for result in results] == ["cancelled"] * 2
        assert {result.attempts for result in results} == {1}
        (late,) = attempts.run(requests[:1])
        assert late.stop_reason == "cancelled" and len(late.codes) == 0


def test_a_full_queue_is_told_at_once_or_waited_for(
    synthesizer: Synthesizer, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Service(synthesizer, slots=1, waiting=0) as service:
        blocking = service.stream(replace(requests[0], min_frames=600, max_frames=700))
        next(blocking)
        with pytest.raises(EngineBusy):
            Attempts(service, RetryPolicy()).run(requests[:1], wait=False)
        monkeypatch.setattr("inference.synthesis.attempts.MAX_QUEUE_SECONDS", 0.2)
        with pytest.raises(EngineBusy):
            Attempts(service, RetryPolicy()).run(requests[:1])
        monkeypatch.undo()
        timer = threading.Timer(0.2, blocking.close)
        timer.start()
        (result,) = Attempts(service, RetryPolicy(retries=0)).run(requests[:1])
        assert len(result.codes) > 0


def test_what_was_begun_is_cancelled_where_the_queue_is_full(
    synthesizer: Synthesizer, requests: list[Request]
) -> None:
    """As nobody will read it."""
    slow = [replace(request, min_frames=600, max_frames=700) for request in requests[:3]]
    with Service(synthesizer, slots=1, waiting=1) as service:
        frames: list[torch.Tensor] = []
        attempts = Attempts(service, RetryPolicy(), lambda _: lambda codes, audio: frames.append(codes))
        with pytest.raises(EngineBusy):
            attempts.run(slow, wait=False)
        until = time.monotonic() + 20
        while service.engine.busy:
            assert time.monotonic() < until
            time.sleep(0.01)
    assert len(frames) < 600
