"""Synthesis of long texts: segments, joins, retries, progress and resuming."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cat_tts.asr import config as asr_config
from cat_tts.asr.model import CatASR
from eval.seed_tts.synthesize import speak
from inference import Synthesizer
from inference.engine.seeds import derived_seed
from inference.longform.silence_trimming import FADE_SECONDS
from inference.longform.synthesize import LongFormOptions, Progress, synthesize_long_form, synthesize_segments
from inference.synthesis.best_of_n import plausibility, score
from tokenizer import AudioTokenizer

PROMPT_TEXT = "What the recording says."
LONG_TEXT = (
    "The old fox jumps. A lazy dog sleeps near the house.\n\nGood day! [pause 250.5ms] Today the bird runs."
)
SEGMENTS = ["The old fox jumps.", "A lazy dog sleeps near the house.", "Good day!", "Today the bird runs."]
SHORT_TEXT = LongFormOptions(depth=2, segment_seconds=2.5)


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture(scope="module")
def unreliable(bundle: Path) -> Synthesizer:
    """Return a model of whose results some end by themselves and some reach their limit."""
    synthesizer = Synthesizer.from_pretrained(bundle, device="cpu")
    weight = synthesizer.tts.depth.decision_head.weight
    with torch.no_grad():
        weight.copy_(0.8 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return synthesizer


def test_segments_have_one_voice(synthesizer: Synthesizer, prompt_file: Path) -> None:
    """Each segment has its own seed, and equals the single result."""
    voice = synthesizer.voice(prompt_file, PROMPT_TEXT)
    long_result = synthesize_long_form(
        synthesizer, LONG_TEXT, prompt_file, PROMPT_TEXT, replace(SHORT_TEXT, seed=5)
    )
    assert [segment.text for segment in long_result.segments] == SEGMENTS
    assert [segment.seed for segment in long_result.segments] == [derived_seed(5, n) for n in range(4)]
    for segment in long_result.segments:
        result = synthesizer.synthesize(segment.text, voice, depth=2, seed=segment.seed)
        assert (segment.stop_reason, segment.attempts) == (result.stop_reason, 1) == ("end", 1)
        assert 0 < segment.seconds <= result.seconds
    assert long_result.seconds == len(long_result.audio) / 24_000 and long_result.retries == 0
    assert np.array_equal(long_result.audio, np.concatenate([p.audio for p in long_result.segments]))


def test_a_single_segment_is_the_request_itself(synthesizer: Synthesizer, prompt_file: Path) -> None:
    long_result = synthesize_long_form(
        synthesizer, " Good  morning. ", prompt_file, PROMPT_TEXT, LongFormOptions(seed=7)
    )
    result = synthesizer.synthesize("Good morning.", prompt_file, PROMPT_TEXT, seed=7)
    assert np.array_equal(long_result.audio, result.audio) and long_result.segments[0].seed == 7


def test_pauses_between_segments_are_exact(synthesizer: Synthesizer, prompt_file: Path) -> None:
    """Pauses are exact to the sample and digital silence; segments begin and end with faded sound."""
    text = f"[pause 10ms]{LONG_TEXT}\n\nYes. [pause 1s]"
    first, second, third, fourth, last = synthesize_long_form(
        synthesizer, text, prompt_file, PROMPT_TEXT, SHORT_TEXT
    ).segments
    silences = [
        (first, 240, 7_200),
        (second, 0, 14_400),
        (third, 0, 6_012),
        (fourth, 0, 14_400),
        (last, 0, 24_000),
    ]
    for segment, before, after in silences:
        assert len(segment.audio) == before + round(segment.seconds * 24_000) + after
        assert not segment.audio[:before].any() and not segment.audio[-after:].any()
        assert segment.audio[before] and segment.audio[-after - 1]


def test_joins_do_not_click(synthesizer: Synthesizer, prompt_file: Path) -> None:
    """At the ends of a segment no step between samples is larger than the steps inside."""
    long_result = synthesize_long_form(synthesizer, LONG_TEXT, prompt_file, PROMPT_TEXT, SHORT_TEXT)
    steps = np.abs(np.diff(long_result.audio, prepend=0, append=0))
    fade, start = round(FADE_SECONDS * 24_000), 0
    for segment in long_result.segments:
        count = round(segment.seconds * 24_000)
        inside = steps[start + fade : start + count - fade].max()
        assert max(steps[start], steps[start + count]) < 0.01 * inside
        assert steps[start : start + fade].max() <= inside
        assert steps[start + count - fade : start + count + 1].max() <= inside
        start += len(segment.audio)
    assert start == len(long_result.audio)


@pytest.mark.parametrize(("seed", "attempts"), [(3, 1), (0, 2)])
def test_retries(unreliable: Synthesizer, prompt_file: Path, seed: int, attempts: int) -> None:
    """The first attempt that ends is chosen; its seed alone gives the same result."""
    long_result = synthesize_long_form(
        unreliable, "go", prompt_file, PROMPT_TEXT, LongFormOptions(depth=2, seed=seed)
    )
    results = [
        unreliable.synthesize("go", prompt_file, PROMPT_TEXT, depth=2, seed=derived_seed(seed, n))
        for n in range(attempts)
    ]
    assert [result.stop_reason for result in results] == ["limit"] * (attempts - 1) + ["end"]
    (segment,) = long_result.segments
    assert (segment.stop_reason, segment.attempts, long_result.retries) == ("end", attempts, attempts - 1)
    assert segment.seed == results[-1].seed and np.array_equal(segment.audio, results[-1].audio)


def test_when_all_attempts_fail_the_best_is_chosen(unreliable: Synthesizer, prompt_file: Path) -> None:
    long_result = synthesize_long_form(
        unreliable, "go", prompt_file, PROMPT_TEXT, LongFormOptions(depth=2, seed=2, retries=2)
    )
    results = [
        unreliable.synthesize("go", prompt_file, PROMPT_TEXT, depth=2, seed=derived_seed(2, n))
        for n in range(3)
    ]
    assert {result.stop_reason for result in results} == {"limit"}
    (segment,) = long_result.segments
    assert (segment.stop_reason, segment.attempts, long_result.retries) == ("limit", 3, 2)
    assert segment.seed == max(results, key=plausibility).seed


@pytest.mark.parametrize(("bar", "attempts"), [(-1e9, 1), (1.0, 3)])
def test_unintelligible_attempts_are_repeated(
    synthesizer: Synthesizer, prompt_file: Path, monkeypatch: pytest.MonkeyPatch, bar: float, attempts: int
) -> None:
    """A model with a CAT-ASR repeats attempts; when all fail, the best is chosen."""
    torch.manual_seed(0)
    with_asr = Synthesizer(
        synthesizer.tts,
        synthesizer.text_tokenizer,
        synthesizer.tokenizer,
        asr_model=CatASR(asr_config.tiny()).eval(),
    )
    monkeypatch.setattr("inference.synthesis.best_of_n.MIN_INTELLIGIBILITY", bar)
    (segment,) = synthesize_long_form(
        with_asr, "Dogs sleep.", prompt_file, PROMPT_TEXT, LongFormOptions(seed=1)
    ).segments
    results = [
        with_asr.synthesize("Dogs sleep.", prompt_file, PROMPT_TEXT, seed=derived_seed(1, n))
        for n in range(attempts)
    ]
    assert results[0].stop_reason == "end"
    assert (segment.attempts, segment.seed) == (
        attempts,
        max(results, key=lambda result: score(with_asr, result)).seed,
    )
    request = with_asr.request("Dogs sleep.", prompt_file, PROMPT_TEXT, seed=1)
    (same,) = speak(with_asr, [request], slots=1, candidates=1, retries=2)
    assert same.seed == segment.seed and np.array_equal(same.audio, segment.audio)


def test_a_requested_limit_is_no_failure(unreliable: Synthesizer, prompt_file: Path) -> None:
    long_result = synthesize_long_form(
        unreliable, "good fox", prompt_file, PROMPT_TEXT, LongFormOptions(depth=2, max_seconds=0.16)
    )
    assert (long_result.seconds, long_result.retries, long_result.segments[0].stop_reason) == (
        0.16,
        0,
        "limit",
    )


def test_candidates(synthesizer: Synthesizer, prompt_file: Path) -> None:
    """The result is the best of several candidates, extended to full depth."""
    long_form = LongFormOptions(seed=0, candidates=3, candidate_depth=2)
    (segment,) = synthesize_long_form(
        synthesizer, "Dogs sleep.", prompt_file, PROMPT_TEXT, long_form
    ).segments
    candidates = [
        synthesizer.synthesize("Dogs sleep.", prompt_file, PROMPT_TEXT, depth=2, seed=derived_seed(0, n))
        for n in range(3)
    ]
    best = max(candidates, key=plausibility)
    assert best is not candidates[0] and segment.seed == best.seed
    assert np.array_equal(segment.audio, synthesizer.extend_depth(best).audio)


def test_progress(synthesizer: Synthesizer, prompt_file: Path) -> None:
    reported: list[Progress] = []
    long_result = synthesize_long_form(
        synthesizer, LONG_TEXT, prompt_file, PROMPT_TEXT, SHORT_TEXT, on_progress=reported.append
    )
    expected = []
    for index, segment in enumerate(long_result.segments):
        frames = len(
            synthesizer.synthesize(segment.text, prompt_file, PROMPT_TEXT, depth=2, seed=segment.seed).codes
        )
        expected += [Progress(segment=index, segments=4, attempt=0, frames=n) for n in range(frames + 1)]
    assert reported == expected


def test_an_interrupted_synthesis_is_resumed(
    synthesizer: Synthesizer, bundle: Path, prompt_file: Path, tmp_path: Path
) -> None:
    """Cached segments are not synthesized again, in a later process either, and the audio is the same."""
    whole, reported = synthesize_long_form(synthesizer, LONG_TEXT, prompt_file, PROMPT_TEXT, SHORT_TEXT), []
    stream = synthesize_segments(
        synthesizer, LONG_TEXT, prompt_file, PROMPT_TEXT, SHORT_TEXT, cache=tmp_path / "deep" / "work"
    )
    assert np.array_equal(next(stream).audio, whole.segments[0].audio)
    next(stream)
    stream.close()
    assert len(list((tmp_path / "deep" / "work").iterdir())) == 2
    later = Synthesizer.from_pretrained(bundle, device="cpu")
    cache = tmp_path / "deep" / "work"
    resumed = synthesize_long_form(
        later, LONG_TEXT, prompt_file, PROMPT_TEXT, SHORT_TEXT, cache=cache, on_progress=reported.append
    )
    assert {progress.segment for progress in reported} == {2, 3}
    assert np.array_equal(resumed.audio, whole.audio)
    assert [replace(a, audio=b.audio) for a, b in zip(resumed.segments, whole.segments, strict=True)] == list(
        whole.segments
    )
    assert len(list(cache.iterdir())) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"depth": 3},
        {"max_seconds": 5.0},
        {"retries": 1},
        {"candidates": 2},
        {"sampling": "cooler"},
    ],
)
def test_segments_of_other_options_are_not_used(
    synthesizer: Synthesizer, prompt_file: Path, tmp_path: Path, change: dict
) -> None:
    if change.get("sampling"):
        change = {"sampling": replace(synthesizer.sampling, temperature=0.5)}
    reported = []
    synthesize_long_form(synthesizer, "Yes.", prompt_file, PROMPT_TEXT, SHORT_TEXT, cache=tmp_path)
    synthesize_long_form(
        synthesizer,
        "Yes.",
        prompt_file,
        PROMPT_TEXT,
        replace(SHORT_TEXT, **change),
        cache=tmp_path,
        on_progress=reported.append,
    )
    assert reported


def test_segments_of_another_voice_text_or_model_are_not_used(
    synthesizer: Synthesizer, bundle: Path, voice: np.ndarray, tmp_path: Path
) -> None:
    other = Synthesizer.from_pretrained(bundle, device="cpu")
    other.tokenizer = AudioTokenizer(other.tokenizer.config)
    inputs = [
        (synthesizer, "Yes.", (voice, 24_000), PROMPT_TEXT),
        (synthesizer, "Yes!", (voice, 24_000), PROMPT_TEXT),
        (synthesizer, "Yes.", (voice[:20_000], 24_000), PROMPT_TEXT),
        (synthesizer, "Yes.", (voice, 24_000), "Other words."),
        (other, "Yes.", (voice, 24_000), PROMPT_TEXT),
    ]
    for count, (model, text, prompt, words) in enumerate(inputs, 1):
        synthesize_long_form(model, text, prompt, words, SHORT_TEXT, cache=tmp_path)
        assert len(list(tmp_path.iterdir())) == count


def test_mistakes(synthesizer: Synthesizer, prompt_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="retries=-1"):
        LongFormOptions(retries=-1)
    with pytest.raises(ValueError, match="the best of 0 candidates"):
        LongFormOptions(candidates=0)
    with pytest.raises(ValueError, match="depth 9: this model has 6 codebooks"):
        synthesize_long_form(synthesizer, LONG_TEXT, prompt_file, PROMPT_TEXT, LongFormOptions(depth=9))
    with pytest.raises(ValueError, match="is no pause"):
        synthesize_long_form(synthesizer, "A [pause] b", prompt_file, PROMPT_TEXT)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file: cannot be a cache folder \(File exists\)"):
        synthesize_long_form(
            synthesizer, LONG_TEXT, prompt_file, PROMPT_TEXT, SHORT_TEXT, cache=tmp_path / "file"
        )
    synthesize_long_form(synthesizer, "Yes.", prompt_file, PROMPT_TEXT, SHORT_TEXT, cache=tmp_path / "work")
    (segment,) = (tmp_path / "work").iterdir()
    segment.write_bytes(segment.read_bytes()[:99])
    with pytest.raises(ValueError, match=r"\.safetensors: broken; delete it"):
        synthesize_long_form(
            synthesizer, "Yes.", prompt_file, PROMPT_TEXT, SHORT_TEXT, cache=tmp_path / "work"
        )
