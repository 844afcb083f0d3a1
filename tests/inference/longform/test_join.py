"""Joining of segments, computed by hand: audio, codes, pauses, and what the whole tells of its parts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inference import SynthesisOptions, SynthesisResult, Synthesizer
from inference.longform.join import extend_depth, join, overall_stop_reason, silence
from inference.longform.plan import SpeechPlan
from inference.synthesis.runner import LocalRunner
from inference.voices.voice import SILENT_FRAMES

RAMP = 0.5 - 0.5 * np.cos(np.pi * (np.arange(120) + 0.5) / 120)
"""The fade of 5 ms."""


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture(scope="module")
def planned(synthesizer: Synthesizer, prompt_file: Path) -> SpeechPlan:
    """Two segments with pauses of 2, 3 and 50 frames."""
    voice = synthesizer.load_voice(prompt_file, "What the recording says.")
    request = synthesizer.request("Go.", voice, SynthesisOptions(depth=2))
    return SpeechPlan(requests=(request,) * 2, pauses=(0.16, 0.24, 4.0), options=SynthesisOptions(seed=7))


def result(level: float, samples: int, code: int) -> SynthesisResult:
    return SynthesisResult(
        audio=np.full(samples, level, np.float32),
        sample_rate=24_000,
        codes=torch.full((samples // 500, 2), code),
        depth=2,
        bitrate=125.0,
        seed=code,
        stop_reason="end",
    )


def test_two_segments(synthesizer: Synthesizer, planned: SpeechPlan) -> None:
    first, second = result(0.3, 1000, 4), result(-0.2, 1500, 5)
    joined = join(planned, [first, second], synthesizer.voices)
    speech = [np.full(1000, 0.3), np.full(1500, -0.2)]
    for audio in speech:
        audio[:120] *= RAMP
        audio[-120:] *= RAMP[::-1]
    pauses = [np.zeros(count) for count in (3_840, 5_760, 96_000)]
    expected = np.concatenate([pauses[0], speech[0], pauses[1], speech[1], pauses[2]])
    assert joined.audio.dtype == np.float32
    np.testing.assert_allclose(joined.audio, expected, atol=1e-7)
    quiet = synthesizer.voices.silence[:, :2]
    assert len(quiet) == SILENT_FRAMES == 25
    parts = [quiet[:2], first.codes, quiet[:3], second.codes, quiet, quiet[-1:].expand(25, -1)]
    assert torch.equal(joined.codes, torch.cat(parts)) and len(joined.codes) == 2 + 2 + 3 + 3 + 50
    assert (joined.seed, joined.depth, joined.bitrate, joined.sample_rate) == (7, 2, 125.0, 24_000)
    assert joined.segments == (first, second) == joined.parts and joined.pauses == planned.pauses
    assert joined.request is None


def test_what_the_whole_tells(synthesizer: Synthesizer, planned: SpeechPlan) -> None:
    """The sum of the attempts, the worst segment that was measured, and the first bad reason."""
    first = replace(result(0.3, 1000, 4), attempts=2, intelligibility=-0.1)
    second = replace(result(0.3, 1000, 5), attempts=3, intelligibility=-0.4)
    joined = join(planned, [first, second], synthesizer.voices)
    assert (joined.attempts, joined.intelligibility, joined.acceptable) == (5, -0.4, True)
    failed = replace(second, intelligibility=None, acceptable=False, stop_reason="silence")
    joined = join(planned, [first, failed], synthesizer.voices)
    assert (joined.attempts, joined.intelligibility, joined.acceptable) == (5, -0.1, False)
    assert joined.stop_reason == "silence"
    unmeasured = [replace(each, intelligibility=None) for each in (first, second)]
    assert join(planned, unmeasured, synthesizer.voices).intelligibility is None


def test_the_beginning_of_a_text(synthesizer: Synthesizer, planned: SpeechPlan) -> None:
    """Where later segments are missing, the pause after the last one that is there belongs to it."""
    joined = join(planned, [result(0.3, 1000, 4)], synthesizer.voices)
    assert len(joined.audio) == 3_840 + 1000 + 5_760 and joined.pauses == (0.16, 0.24)
    assert joined.stop_reason == "cancelled" and len(joined.segments) == 1


def test_a_single_segment_is_returned_as_it_is(synthesizer: Synthesizer, planned: SpeechPlan) -> None:
    single, only = replace(planned, requests=planned.requests[:1], pauses=(0.0, 0.0)), result(0.3, 1000, 4)
    assert join(single, [only], synthesizer.voices) is only
    paused = join(replace(single, pauses=(0.0, 0.08)), [only], synthesizer.voices)
    assert paused.segments == (only,) and len(paused.audio) == 1000 + 1920


def test_stop_reasons_of_a_text() -> None:
    end, limit, runaway = (
        replace(result(0.3, 1000, 4), stop_reason=reason) for reason in ("end", "limit", "repetition")
    )
    assert overall_stop_reason([end, end], 2) == "end"
    assert overall_stop_reason([end, limit, runaway], 3) == "limit"
    assert overall_stop_reason([runaway, limit], 2) == "repetition"
    assert overall_stop_reason([limit], 2) == overall_stop_reason([], 1) == "cancelled"


def test_silence_in_parts_of_a_second() -> None:
    assert [len(part) for part in silence(2.5, 24_000)] == [24_000, 24_000, 12_000]
    assert silence(0.0, 24_000) == [] and len(silence(1.0, 24_000)) == 1


def test_an_extension_keeps_what_was_done(synthesizer: Synthesizer, planned: SpeechPlan) -> None:
    runner = LocalRunner(synthesizer)
    spoken = runner.stream(planned.requests[0].changed(max_seconds=0.4)).collect()
    summary = replace(spoken, attempts=3, intelligibility=-0.9, acceptable=False, stop_reason="limit")
    extended = extend_depth(runner, summary, 5)
    assert (extended.attempts, extended.intelligibility, extended.acceptable) == (3, -0.9, False)
    assert extended.stop_reason == "limit" and extended.depth == 5
    assert torch.equal(extended.codes[:, :2], summary.codes)
    assert extend_depth(runner, summary, 2) is summary
    empty = replace(summary, codes=summary.codes[:0], audio=summary.audio[:0])
    with pytest.raises(ValueError, match="no codes"):
        extend_depth(runner, empty, 3)
