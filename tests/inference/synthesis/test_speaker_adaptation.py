"""Adaptation to a speaker changes a copy of the model, which then predicts the prompt better."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cat_tts.sequences.formats import build_example
from eval.seed_tts.synthesize import AdaptedSynthesizer
from inference import Synthesizer
from inference.cli.main import main
from inference.synthesis.speaker_adaptation import adapt_to_speaker
from inference.voices.voice import Voice
from tokenizer.io.audio import load_audio

PROMPT_TEXT = "What the recording says."


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture(scope="module")
def speaker(synthesizer: Synthesizer, prompt_file: Path) -> Voice:
    return synthesizer.voice(prompt_file, PROMPT_TEXT)


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
    results = [adapted.synthesize("Dogs sleep.", speaker, seed=1) for adapted in (*steps, synthesizer)]
    assert torch.equal(results[0].codes, results[1].codes)
    assert not torch.equal(results[0].codes, results[2].codes)


@pytest.mark.parametrize("steps", [-1, 1001])
def test_invalid_steps_are_refused(
    synthesizer: Synthesizer,
    speaker: Voice,
    prompt_file: Path,
    steps: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(
        ValueError, match=rf"{steps} steps to adapt .*: give 0 for the decoder alone, up to 1000"
    ):
        adapt_to_speaker(synthesizer, speaker, steps)
    with pytest.raises(ValueError, match="0 steps leave the model as it is"):
        adapt_to_speaker(synthesizer, speaker, 0)
    with pytest.raises(SystemExit):
        main(
            [
                "clone",
                str(prompt_file),
                "--prompt-text",
                PROMPT_TEXT,
                "--text",
                "Dogs.",
                "--adapt-steps",
                str(steps),
            ]
        )
    assert f"{steps} steps to adapt" in capsys.readouterr().err


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


def test_the_benchmark_adapts_to_the_voice_of_each_request(synthesizer: Synthesizer, speaker: Voice) -> None:
    other = Voice(codes=speaker.codes.flip(0), text=speaker.text)
    requests = [synthesizer.request("Dogs sleep.", one, depth=3, seed=1) for one in (speaker, other)]
    results = AdaptedSynthesizer(synthesizer, 2).speak(requests, slots=8, candidates=1)
    for result, request in zip(results, requests, strict=True):
        adapted = adapt_to_speaker(synthesizer, request.voice, 2)
        assert torch.equal(result.codes, adapted.start(request).collect().codes)
