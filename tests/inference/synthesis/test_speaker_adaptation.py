"""Adaptation to a speaker changes a copy of the model, which then predicts the prompt better."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cat_tts.sequences.formats import build_example
from inference import Synthesizer
from inference.cli.main import main
from inference.engine.options import UNWATCHED, SynthesisOptions
from inference.longform.join import extend_depth
from inference.synthesis.runner import LocalRunner
from inference.synthesis.speaker_adaptation import adapt_to_speaker
from inference.voices.voice import Voice
from tokenizer.io.audio import load_audio

PROMPT_TEXT = "What the recording says."


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture(scope="module")
def speaker(synthesizer: Synthesizer, prompt_file: Path) -> Voice:
    return synthesizer.load_voice(prompt_file, PROMPT_TEXT)


def weights(synthesizer: Synthesizer) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in synthesizer.tts.named_parameters()}


@torch.inference_mode()
def likelihood(synthesizer: Synthesizer, speaker: Voice) -> float:
    """Return the log-likelihood of the prompt given its text, in nats per code."""
    model = synthesizer.tts
    example = build_example(model.config, synthesizer.text_tokenizer, speaker.text, speaker.codes)
    depth = torch.tensor([model.config.num_codebooks])
    return -float(model(example.rows[None], None, example.targets[None], depth).codes)


@pytest.mark.parametrize("outer", [torch.enable_grad, torch.inference_mode])
def test_the_prompt_becomes_likelier_and_only_matrices_of_layers_change(
    synthesizer: Synthesizer, speaker: Voice, outer: type
) -> None:
    before = weights(synthesizer)
    with outer():
        adapted = adapt_to_speaker(synthesizer, speaker, 20, total_learning_rate=0.02)
    assert likelihood(adapted, speaker) > likelihood(synthesizer, speaker) + 0.05
    assert all(torch.equal(before[name], weight) for name, weight in weights(synthesizer).items())
    changed = {name for name, weight in weights(adapted).items() if not torch.equal(before[name], weight)}
    assert changed == {name for name, one in before.items() if ".layers." in name and one.ndim == 2}
    assert adapted.tokenizer is synthesizer.tokenizer and adapted.voices is synthesizer.voices
    assert adapted.sampling == synthesizer.sampling
    assert not any(weight.requires_grad for weight in adapted.tts.parameters())


def test_adaptation_is_deterministic(synthesizer: Synthesizer, speaker: Voice) -> None:
    steps = [adapt_to_speaker(synthesizer, speaker, 3) for _ in range(2)]
    results = [
        adapted.synthesize("Dogs sleep.", speaker, SynthesisOptions(seed=1, policy=UNWATCHED))
        for adapted in (*steps, synthesizer)
    ]
    assert torch.equal(results[0].codes, results[1].codes)
    assert not torch.equal(results[0].codes, results[2].codes)


@pytest.mark.parametrize("steps", [-1, 0, 1001])
def test_invalid_steps_are_refused(synthesizer: Synthesizer, speaker: Voice, steps: int) -> None:
    with pytest.raises(ValueError, match=rf"^{steps} steps to adapt the model to a voice: give 1 to 1000"):
        adapt_to_speaker(synthesizer, speaker, steps)


def test_a_prompt_without_transcript_is_refused(synthesizer: Synthesizer, speaker: Voice) -> None:
    with pytest.raises(ValueError, match="give the prompt's text"):
        adapt_to_speaker(synthesizer, replace(speaker, text=" "), 1)


def test_the_command_adapts(bundle: Path, prompt_file: Path, tmp_path: Path) -> None:
    arguments = [
        "clone",
        str(prompt_file),
        "--prompt-text",
        PROMPT_TEXT,
        "--text",
        "The lazy dog sleeps near the house.",
        "--model",
        str(bundle),
    ]
    main([*arguments, "--device", "cpu", "-o", str(tmp_path / "plain.wav")])
    main([*arguments, "--device", "cpu", "--adapt-steps", "2", "-o", str(tmp_path / "own.wav")])
    plain, adapted = (load_audio(tmp_path / name, 24_000) for name in ("plain.wav", "own.wav"))
    assert plain.shape != adapted.shape or not torch.equal(plain, adapted)


def test_the_options_adapt_to_each_voice(synthesizer: Synthesizer, speaker: Voice) -> None:
    """In a batch too, where every voice has a model of its own; models of recent voices are cached."""
    other = Voice(codes=speaker.codes.flip(0), text=speaker.text)
    options = SynthesisOptions(depth=3, seed=1, adapt_steps=2, policy=UNWATCHED)
    results = synthesizer.synthesize_batch(["Dogs sleep."] * 2, [speaker, other], options)
    for result, voice in zip(results, (speaker, other), strict=True):
        adapted = adapt_to_speaker(synthesizer, voice, 2)
        request = synthesizer.request("Dogs sleep.", voice, options)
        assert torch.equal(result.codes, LocalRunner(adapted).stream(request).collect().codes)
    assert synthesizer.adapted(other, 2) is synthesizer.adapted(other, 2)
    assert synthesizer.adapted(other, 0) is synthesizer
    own = adapt_to_speaker(synthesizer, other, 2)
    assert own.adapted(other, 2) is own, "it is not adapted twice"
    assert torch.equal(own.synthesize("Dogs sleep.", other, options).codes, results[1].codes)
    for wrong in (-1, 1.0, None):
        with pytest.raises(ValueError, match=f"^steps={wrong}: give a whole number"):
            synthesizer.adapted(other, wrong)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("text", ["Dogs sleep.", "Dogs sleep. [pause 100ms] The fox runs."])
def test_the_adapted_model_extends_its_results(synthesizer: Synthesizer, speaker: Voice, text: str) -> None:
    options = SynthesisOptions(depth=2, seed=1, adapt_steps=2, policy=UNWATCHED)
    result = synthesizer.synthesize(text, speaker, options)
    runner = LocalRunner(adapt_to_speaker(synthesizer, speaker, 2))
    extended = synthesizer.extend_depth(result)
    assert torch.equal(extended.codes, extend_depth(runner, result).codes)
    assert not torch.equal(extended.codes, extend_depth(LocalRunner(synthesizer), result).codes)
