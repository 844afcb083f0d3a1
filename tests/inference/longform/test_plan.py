"""Plans of texts: their segments, seeds and pauses, and what is refused before anything is computed."""

from pathlib import Path
from typing import Any

import pytest

from inference import RetryPolicy, SynthesisOptions, Synthesizer, Voice
from inference.engine.seeds import derived_seed
from inference.longform.plan import plan


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture(scope="module")
def speaker(synthesizer: Synthesizer, prompt_file: Path) -> Voice:
    return synthesizer.load_voice(prompt_file, "What the recording says.")


def test_segments_seeds_and_pauses(synthesizer: Synthesizer, speaker: Voice) -> None:
    options = SynthesisOptions(seed=5, depth=3, segment_seconds=1.5, policy=RetryPolicy(retries=1))
    text = "[pause 80ms]The old fox jumps. Good day!\n\nTake 7 dogs. [pause 1.5 s]"
    planned = plan(synthesizer, text, speaker, options)
    assert [request.text for request in planned.requests] == [
        "The old fox jumps.",
        "Good day!",
        "Take seven dogs.",
    ]
    assert planned.pauses == (0.08, 0.3, 0.6, 1.5)
    assert [request.seed for request in planned.requests] == [5, derived_seed(5, 1), derived_seed(5, 2)]
    for request in planned.requests:
        assert request.voice == speaker and request.depth == 3 and request.sampling == synthesizer.sampling
        assert request.options.policy == options.policy
    assert planned.options == synthesizer.resolve(options) and not planned.is_single_segment


def test_a_single_segment(synthesizer: Synthesizer, speaker: Voice) -> None:
    """It is the very request of its text."""
    planned = plan(synthesizer, "Good day!", speaker)
    assert planned.requests == (synthesizer.request("Good day!", speaker),)
    assert planned.pauses == (0.0, 0.0) and planned.is_single_segment
    assert planned.options.depth == synthesizer.max_depth and planned.options.policy == RetryPolicy()
    assert not plan(synthesizer, "Good day! [pause 10ms]", speaker).is_single_segment
    assert not plan(synthesizer, "[pause 10ms] Good day!", speaker).is_single_segment


def test_texts_stay_as_they_are_without_normalization(synthesizer: Synthesizer, speaker: Voice) -> None:
    planned = plan(synthesizer, "Take 7 dogs.", speaker, SynthesisOptions(normalize=False))
    assert planned.requests[0].text == "Take 7 dogs."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": None}, "the text is None: give a string"),
        ({"text": b"Go."}, "the text is b'Go.': give a string"),
        ({"text": ["Go."]}, r"the text is \['Go.'\]: give a string"),
        ({"text": " "}, "the text is empty"),
        ({"text": "[pause 1s] ?"}, ".*has no letter or digit"),
        ({"voice": None}, "None is no voice: load_voice makes one of a recording"),
        ({"voice": "prompt.wav"}, "'prompt.wav' is no voice"),
        ({"options": {"depth": 2}}, r"options \{'depth': 2\}: give SynthesisOptions"),
        ({"options": SynthesisOptions(depth=7)}, "depth 7: this model has 6 codebooks"),
        ({"options": SynthesisOptions(mode="reference")}, "this model only continues prompts"),
    ],
)
def test_what_is_refused(
    synthesizer: Synthesizer, speaker: Voice, change: dict[str, Any], message: str
) -> None:
    arguments: dict[str, Any] = {"text": "Go.", "voice": speaker, "options": None, **change}
    with pytest.raises(ValueError, match=f"^{message}") as refusal:
        plan(synthesizer, **arguments)
    assert "\n" not in str(refusal.value)
