"""Segments on disk: an interrupted synthesis is resumed, and nothing else is taken for what it is not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference import RetryPolicy, SynthesisOptions, Synthesizer, Voice
from inference.longform.plan import plan
from inference.longform.stream import Progress, SynthesisStream
from inference.synthesis.runner import LocalRunner
from tokenizer import AudioTokenizer

PROMPT_TEXT = "What the recording says."
LONG_TEXT = (
    "The old fox jumps. A lazy dog sleeps near the house.\n\nGood day! [pause 250.5ms] Today the bird runs."
)
SHORT_SEGMENTS = SynthesisOptions(depth=2, segment_seconds=2.5)


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture(scope="module")
def speaker(synthesizer: Synthesizer, prompt_file: Path) -> Voice:
    return synthesizer.load_voice(prompt_file, PROMPT_TEXT)


def test_an_interrupted_synthesis_is_resumed(
    synthesizer: Synthesizer, speaker: Voice, bundle: Path, tmp_path: Path
) -> None:
    """Cached segments are not synthesized again, in a later process either, and the result is the same."""
    whole, cache = synthesizer.synthesize(LONG_TEXT, speaker, SHORT_SEGMENTS), tmp_path / "deep" / "work"
    planned = plan(synthesizer, LONG_TEXT, speaker, SHORT_SEGMENTS)
    with SynthesisStream(LocalRunner(synthesizer), planned, cache=cache) as stream:
        while len(stream.results) < 2:
            next(stream)
    assert len(list(cache.iterdir())) == 2
    later, reported = Synthesizer.from_pretrained(bundle, device="cpu"), list[Progress]()
    resumed = later.synthesize(LONG_TEXT, speaker, SHORT_SEGMENTS, cache=cache, on_progress=reported.append)
    assert {progress.segment for progress in reported} == {2, 3}
    assert np.array_equal(resumed.audio, whole.audio) and torch.equal(resumed.codes, whole.codes)
    names = ("seed", "stop_reason", "attempts", "acceptable", "intelligibility", "depth", "bitrate")
    for segment, expected in zip(resumed.segments, whole.segments, strict=True):
        assert [getattr(segment, name) for name in names] == [getattr(expected, name) for name in names]
        assert segment.request is not None and segment.request == expected.request
    assert len(list(cache.iterdir())) == 4
    assert torch.equal(later.extend_depth(resumed, 3).codes, synthesizer.extend_depth(whole, 3).codes)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"depth": 3},
        {"max_seconds": 5.0},
        {"policy": RetryPolicy(retries=1)},
        {"policy": RetryPolicy(candidates=2)},
        {"sampling": "cooler"},
    ],
)
def test_segments_of_other_options_are_not_used(
    synthesizer: Synthesizer, speaker: Voice, tmp_path: Path, change: dict[str, Any]
) -> None:
    if change.get("sampling"):
        change = {"sampling": replace(synthesizer.sampling, temperature=0.5)}
    reported: list[Progress] = []
    synthesizer.synthesize("Yes.", speaker, SHORT_SEGMENTS, cache=tmp_path)
    again = synthesizer.synthesize(
        "Yes.", speaker, SHORT_SEGMENTS, cache=tmp_path, on_progress=reported.append
    )
    assert not reported and again.seconds > 0
    changed = replace(SHORT_SEGMENTS, **change)
    synthesizer.synthesize("Yes.", speaker, changed, cache=tmp_path, on_progress=reported.append)
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
        model.synthesize(text, model.load_voice(prompt, words), SHORT_SEGMENTS, cache=tmp_path)
        assert len(list(tmp_path.iterdir())) == count


def test_mistakes(synthesizer: Synthesizer, speaker: Voice, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file: cannot be a cache folder \(File exists\)"):
        synthesizer.synthesize(LONG_TEXT, speaker, SHORT_SEGMENTS, cache=tmp_path / "file")
    synthesizer.synthesize("Yes.", speaker, SHORT_SEGMENTS, cache=tmp_path / "work")
    (segment,) = (tmp_path / "work").iterdir()
    segment.write_bytes(segment.read_bytes()[:99])
    with pytest.raises(ValueError, match=r"\.safetensors: broken; delete it"):
        synthesizer.synthesize("Yes.", speaker, SHORT_SEGMENTS, cache=tmp_path / "work")
