"""Texts of any length: segments, joins, retries, progress, and what the result tells."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from cat_tts.asr import config as asr_config
from cat_tts.asr.model import CatASR
from inference import RetryPolicy, SynthesisFailed, SynthesisOptions, SynthesisResult, Synthesizer, Voice
from inference.engine.options import ONE_ATTEMPT, UNWATCHED
from inference.engine.seeds import derived_seed
from inference.longform.silence_trimming import FADE_SECONDS, trim_and_fade
from inference.longform.stream import Progress
from inference.synthesis.quality import plausibility
from inference.text.normalization import normalize
from tests.helpers.command import Command

PROMPT_TEXT = "What the recording says."
LONG_TEXT = (
    "The old fox jumps. A lazy dog sleeps near the house.\n\nGood day! [pause 250.5ms] Today the bird runs."
)
SEGMENTS = ["The old fox jumps.", "A lazy dog sleeps near the house.", "Good day!", "Today the bird runs."]
PAUSES = (0.0, 0.3, 0.6, 0.2505, 0.0)
SHORT_SEGMENTS = SynthesisOptions(depth=2, segment_seconds=2.5)


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture(scope="module")
def speaker(synthesizer: Synthesizer, prompt_file: Path) -> Voice:
    return synthesizer.load_voice(prompt_file, PROMPT_TEXT)


def texts(result: SynthesisResult) -> list[str]:
    return [part.request.text for part in result.parts if part.request is not None]


def test_segments_have_one_voice(synthesizer: Synthesizer, speaker: Voice) -> None:
    """Each segment has its own seed, and equals the single result of its text."""
    result = synthesizer.synthesize(LONG_TEXT, speaker, replace(SHORT_SEGMENTS, seed=5))
    assert texts(result) == SEGMENTS and result.pauses == PAUSES
    assert [segment.seed for segment in result.segments] == [derived_seed(5, n) for n in range(4)]
    for text, segment in zip(SEGMENTS, result.segments, strict=True):
        single = synthesizer.synthesize(text, speaker, replace(SHORT_SEGMENTS, seed=segment.seed))
        assert np.array_equal(segment.audio, single.audio) and torch.equal(segment.codes, single.codes)
        assert (segment.stop_reason, segment.attempts) == ("end", 1)
    assert (result.attempts, result.acceptable, result.stop_reason, result.seed) == (4, True, "end", 5)


def test_joined_audio(synthesizer: Synthesizer, speaker: Voice) -> None:
    """Trimmed segments with pauses that are exact to the sample and digital silence."""
    result = synthesizer.synthesize(f"[pause 10ms]{LONG_TEXT}\n\nYes. [pause 1s]", speaker, SHORT_SEGMENTS)
    expected = [np.zeros(240, np.float32)]
    for segment, silence in zip(result.segments, (7_200, 14_400, 6_012, 14_400, 24_000), strict=True):
        expected += [trim_and_fade(segment.audio, 24_000), np.zeros(silence, np.float32)]
        assert expected[-2][0] and expected[-2][-1]
    assert np.array_equal(result.audio, np.concatenate(expected))


def test_joins_do_not_click(synthesizer: Synthesizer, speaker: Voice) -> None:
    """At the ends of a segment no step between samples is larger than the steps inside."""
    result = synthesizer.synthesize(LONG_TEXT, speaker, SHORT_SEGMENTS)
    steps = np.abs(np.diff(result.audio, prepend=0, append=0))
    fade, start = round(FADE_SECONDS * 24_000), 0
    for segment, pause in zip(result.segments, PAUSES[1:], strict=True):
        count = len(trim_and_fade(segment.audio, 24_000))
        inside = steps[start + fade : start + count - fade].max()
        assert max(steps[start], steps[start + count]) < 0.01 * inside
        assert steps[start : start + fade].max() <= inside
        assert steps[start + count - fade : start + count + 1].max() <= inside
        start += count + round(pause * 24_000)
    assert start == len(result.audio)


def test_numbers_and_pauses_mean_the_same_as_in_the_command(
    synthesizer: Synthesizer, speaker: Voice, clone: Command, prompt_file: Path, tmp_path: Path
) -> None:
    text = "It is 5 o'clock. [pause 1s] Good day."
    result = synthesizer.synthesize(text, speaker, SHORT_SEGMENTS)
    assert texts(result) == ["It is five o'clock.", "Good day."] and result.pauses == (0, 1.0, 0)
    wav, rate = synthesizer.clone(text, prompt_file, PROMPT_TEXT, depth=2, segment_seconds=2.5)
    assert np.array_equal(wav, result.audio)
    assert clone(text=text, prompt_text=PROMPT_TEXT, depth=2, segment_seconds=2.5).code == 0
    written, written_rate = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert rate == written_rate and np.abs(written - wav).max() <= 2**-15
    raw = synthesizer.synthesize("It is 5 o'clock.", speaker, replace(SHORT_SEGMENTS, normalize=False))
    assert texts(raw) == ["It is 5 o'clock."]
    stream = synthesizer.stream(text, speaker, SHORT_SEGMENTS)
    assert np.array_equal(np.concatenate(list(stream)), result.audio)
    assert normalize("It is 5 o'clock.") == "It is five o'clock."


@pytest.mark.parametrize(("seed", "attempts"), [(3, 1), (0, 2)])
def test_retries(unreliable: Synthesizer, speaker: Voice, seed: int, attempts: int) -> None:
    """The first attempt that ends is chosen; its seed alone gives the same result."""
    result = unreliable.synthesize("go", speaker, SynthesisOptions(depth=2, seed=seed))
    singles = [
        unreliable.synthesize(
            "go", speaker, SynthesisOptions(depth=2, seed=derived_seed(seed, n), policy=UNWATCHED)
        )
        for n in range(attempts)
    ]
    assert [single.stop_reason for single in singles] == ["limit"] * (attempts - 1) + ["end"]
    assert (result.stop_reason, result.attempts, result.acceptable) == ("end", attempts, True)
    assert result.seed == singles[-1].seed and np.array_equal(result.audio, singles[-1].audio)


def test_when_all_attempts_fail_the_best_is_returned_or_an_error(
    unreliable: Synthesizer, speaker: Voice
) -> None:
    options = SynthesisOptions(depth=2, seed=2)
    result = unreliable.synthesize("go", speaker, options)
    singles = [
        unreliable.synthesize("go", speaker, replace(options, seed=derived_seed(2, n), policy=UNWATCHED))
        for n in range(3)
    ]
    assert {single.stop_reason for single in singles} == {"limit"}
    assert (result.stop_reason, result.attempts, result.acceptable) == ("limit", 3, False)
    assert result.seed == max(singles, key=plausibility).seed
    strict = replace(options, policy=RetryPolicy(strict=True))
    for call in (
        lambda: unreliable.synthesize("go", speaker, strict),
        lambda: unreliable.synthesize_batch(["go"], [speaker], strict)[0],
        lambda: unreliable.stream("go", speaker, strict).collect(),
    ):
        with pytest.raises(SynthesisFailed, match="no attempt of ") as failure:
            call()
        assert len(failure.value.result.audio) > 0 and not failure.value.result.acceptable


def test_a_requested_limit_is_no_failure(unreliable: Synthesizer, speaker: Voice) -> None:
    result = unreliable.synthesize("good fox", speaker, SynthesisOptions(depth=2, max_seconds=0.16))
    assert (result.seconds, result.attempts, result.stop_reason) == (0.16, 1, "limit")
    assert result.acceptable


def test_a_stream_is_the_result_where_the_first_attempt_is_accepted(
    unreliable: Synthesizer, speaker: Voice
) -> None:
    accepted, repeated = SynthesisOptions(depth=2, seed=3), SynthesisOptions(depth=2, seed=0)
    stream = unreliable.stream("go", speaker, accepted)
    assert np.array_equal(stream.collect().audio, unreliable.synthesize("go", speaker, accepted).audio)
    played = unreliable.stream("go", speaker, repeated).collect()
    assert (played.attempts, played.acceptable, played.stop_reason) == (1, False, "limit")


@pytest.mark.parametrize("policy", [RetryPolicy(), ONE_ATTEMPT, RetryPolicy(candidates=2, candidate_depth=1)])
def test_a_batch_is_its_texts_one_by_one(
    unreliable: Synthesizer, speaker: Voice, policy: RetryPolicy
) -> None:
    other = Voice(codes=speaker.codes.flip(0), text="Other words.")
    wanted, voices = ["go", LONG_TEXT, "Hi 5."], [speaker, other, speaker]
    options = replace(SHORT_SEGMENTS, seed=2, policy=policy)
    batch = unreliable.synthesize_batch(wanted, voices, options, slots=3)
    for text, voice, result in zip(wanted, voices, batch, strict=True):
        single = unreliable.synthesize(text, voice, options)
        names = ("attempts", "stop_reason", "acceptable", "seed", "pauses")
        assert [getattr(result, name) for name in names] == [getattr(single, name) for name in names]
        assert torch.equal(result.codes, single.codes)
        np.testing.assert_allclose(result.audio, single.audio, atol=1e-4)


def test_joined_results_are_extended(synthesizer: Synthesizer, speaker: Voice) -> None:
    result = synthesizer.synthesize(LONG_TEXT, speaker, SHORT_SEGMENTS)
    extended = synthesizer.extend_depth(result, 4)
    assert (extended.depth, len(extended.codes), extended.pauses) == (4, len(result.codes), PAUSES)
    for segment, shallow in zip(extended.segments, result.segments, strict=True):
        assert torch.equal(segment.codes, synthesizer.extend_depth(shallow, 4).codes)
        assert torch.equal(segment.codes[:, :2], shallow.codes)
    again = synthesizer.extend_depth(extended, 2)
    assert np.array_equal(again.audio, result.audio) and again.stop_reason == result.stop_reason


def test_the_worst_segment_tells_the_intelligibility(synthesizer: Synthesizer, speaker: Voice) -> None:
    torch.manual_seed(0)
    parts = synthesizer.tts, synthesizer.text_tokenizer, synthesizer.tokenizer
    listening = Synthesizer(*parts, asr_model=CatASR(asr_config.tiny()).eval())
    result = listening.synthesize(LONG_TEXT, speaker, replace(SHORT_SEGMENTS, policy=ONE_ATTEMPT))
    scores = [segment.intelligibility for segment in result.segments]
    assert None not in scores and result.intelligibility == min(s for s in scores if s is not None)
    assert synthesizer.synthesize(LONG_TEXT, speaker, SHORT_SEGMENTS).intelligibility is None


def test_progress(synthesizer: Synthesizer, speaker: Voice) -> None:
    reported: list[Progress] = []
    result = synthesizer.synthesize(LONG_TEXT, speaker, SHORT_SEGMENTS, on_progress=reported.append)
    assert reported == [
        Progress(segment=index, segments=4, attempt=0, frames=n)
        for index, segment in enumerate(result.segments)
        for n in range(len(segment.codes) + 1)
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A [pause] b", "is no pause"),
        ("[pause 61s] a", "too long"),
        ("...", "nothing to speak"),
        (b"Hello", "the text is b'Hello': give a string"),
    ],
)
def test_texts_that_cannot_be_spoken(
    synthesizer: Synthesizer, speaker: Voice, text: str, message: str
) -> None:
    for call in (synthesizer.synthesize, synthesizer.stream):
        with pytest.raises(ValueError, match=message):
            call(text, speaker)
    with pytest.raises(ValueError, match="depth 9: this model has 6 codebooks"):
        synthesizer.synthesize(LONG_TEXT, speaker, SynthesisOptions(depth=9))
