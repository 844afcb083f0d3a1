"""What is scored is what users get: each line of a group as Python's `synthesize` speaks it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from eval.seed_tts.groups import Group, is_complete, outputs, speed, synthesize_group
from eval.seed_tts.utterance_list import UtteranceLine
from inference import RetryPolicy, SynthesisOptions, SynthesisResult, Synthesizer
from inference.synthesis import attempts

PROMPT_TEXT = "What the recording says."
TEXTS = ("Dogs sleep.", "\u00a3 \u20ac", "It is 5 o'clock. [pause 0.2s] A red fox.", "The young dog.")


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    """A guided model, whose candidates differ in how they end and in length."""
    synthesizer = Synthesizer.from_pretrained(bundle, device="cpu")
    synthesizer.sampling = replace(synthesizer.sampling, guidance=2.0)
    return synthesizer


@pytest.fixture(params=[(), ("candidates",), ("adapt",)])
def options(request: pytest.FixtureRequest) -> SynthesisOptions:
    """One after the other: retries alone, the best of three candidates, a model adapted to the voice."""
    policy = RetryPolicy(candidates=3, candidate_depth=1) if "candidates" in request.param else RetryPolicy()
    return SynthesisOptions(policy=policy, adapt_steps=2 if "adapt" in request.param else 0)


def test_a_group_is_what_python_speaks(
    synthesizer: Synthesizer,
    prompt_file: Path,
    tmp_path: Path,
    options: SynthesisOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def understood(_: object, result: SynthesisResult) -> float:
        return -0.25 if len(result.codes) >= 6 else -2.5  # so that some lines need several attempts

    monkeypatch.setattr(attempts, "intelligibility", understood)
    lines = tuple(
        UtteranceLine(utt=f"u{i}", target_text=text, prompt_text=PROMPT_TEXT, prompt_audio=prompt_file)
        for i, text in enumerate(TEXTS)
    )
    group = Group(number=3, depth=2, seed=2, lines=lines)
    assert not is_complete(group, tmp_path)
    synthesize_group(synthesizer, group, tmp_path, 2, options)
    assert is_complete(group, tmp_path)
    voice, chosen = synthesizer.load_voice(prompt_file, PROMPT_TEXT), replace(options, depth=2, seed=2)
    tries = []
    for spoken in outputs(group, tmp_path):
        if spoken.error:
            assert spoken.line.utt == "u1" and "has no letter or digit" in spoken.error
            assert spoken.stop is None and not spoken.wav.exists()
            continue
        expected = synthesizer.synthesize(spoken.line.target_text, voice, chosen)
        audio = soundfile.read(spoken.wav, dtype="float32")[0]
        assert len(audio) == len(expected.audio) and np.abs(audio - expected.audio).max() <= 2**-14
        assert (spoken.stop, spoken.depth, spoken.seed) == (expected.stop_reason, 2, 2)
        tries.append(expected.attempts)
    assert len(tries) == 3 and max(tries) > 1
    record = json.loads((tmp_path / "work" / "groups" / "000003.json").read_text())
    audible = sum(take["seconds"] for take in record["takes"])
    assert speed([group], tmp_path) == {2: pytest.approx(record["compute_seconds"] / audible)}
