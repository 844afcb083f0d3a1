"""A copy of the model that is trained on a prompt speaks more like it, and the model stays as it was."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cat_tts.sequences.formats import example_rows
from cat_tts.sequences.rows import shifted_targets
from eval.seed_tts.synthesize import Tuned
from inference import Synthesizer
from inference.cli.main import main
from inference.synthesis.speaker_adaptation import tuned
from inference.voices.voice import Voice
from tokenizer.io.audio import load_audio

WORDS = "What the recording says."


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture(scope="module")
def heard(synthesizer: Synthesizer, prompt_file: Path) -> Voice:
    return synthesizer.voice(prompt_file, WORDS)


def weights(synthesizer: Synthesizer) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in synthesizer.tts.named_parameters()}


@torch.inference_mode()
def likelihood(synthesizer: Synthesizer, heard: Voice) -> float:
    """Nats a code of the prompt, with its text."""
    model = synthesizer.tts
    rows = example_rows(model.config, synthesizer.text, heard.text, heard.codes)[None]
    depth = torch.tensor([model.config.num_codebooks])
    return -float(model(rows[:, :-1], None, shifted_targets(model.config, rows), depth).codes)


@pytest.mark.parametrize("outer", [torch.enable_grad, torch.inference_mode])
def test_the_prompt_becomes_likelier_and_only_matrices_of_layers_change(
    synthesizer: Synthesizer, heard: Voice, outer: type
) -> None:
    before = weights(synthesizer)
    with outer():
        made = tuned(synthesizer, heard, 20, reach=0.02)
    assert likelihood(made, heard) > likelihood(synthesizer, heard) + 0.05
    assert all(torch.equal(before[name], weight) for name, weight in weights(synthesizer).items())
    changed = {name for name, weight in weights(made).items() if not torch.equal(before[name], weight)}
    assert changed == {name for name, one in before.items() if ".layers." in name and one.ndim == 2}
    assert made.tokenizer is synthesizer.tokenizer and made.voices is synthesizer.voices
    assert made.sampling == synthesizer.sampling
    assert not any(weight.requires_grad for weight in made.tts.parameters())


def test_the_same_steps_give_the_same_takes(synthesizer: Synthesizer, heard: Voice) -> None:
    steps = [tuned(synthesizer, heard, 3) for _ in range(2)]
    takes = [made.take("Dogs sleep.", heard, seed=1) for made in (*steps, synthesizer)]
    assert torch.equal(takes[0].codes, takes[1].codes)
    assert not torch.equal(takes[0].codes, takes[2].codes)


@pytest.mark.parametrize("steps", [-1, 1001])
def test_steps_that_cannot_be_are_refused(
    synthesizer: Synthesizer, heard: Voice, prompt_file: Path, steps: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        ValueError, match=rf"{steps} steps to tune .*: give 0 for the decoder alone, up to 1000"
    ):
        tuned(synthesizer, heard, steps)
    with pytest.raises(ValueError, match="0 steps leave the model as it is"):
        tuned(synthesizer, heard, 0)
    with pytest.raises(SystemExit):
        main(["clone", str(prompt_file), "--prompt-text", WORDS, "--text", "Dogs.", "--tune", str(steps)])
    assert f"{steps} steps to tune" in capsys.readouterr().err


def test_a_prompt_without_words_is_refused(synthesizer: Synthesizer, heard: Voice) -> None:
    with pytest.raises(ValueError, match="give the prompt's text"):
        tuned(synthesizer, replace(heard, text=" "), 1)


def test_the_command_tunes(bundle: Path, prompt_file: Path, tmp_path: Path) -> None:
    said = [
        "clone",
        str(prompt_file),
        "--prompt-text",
        WORDS,
        "--text",
        "The lazy dog sleeps near the house.",
        "--model",
        str(bundle),
    ]
    main([*said, "--device", "cpu", "-o", str(tmp_path / "plain.wav")])
    main([*said, "--device", "cpu", "--tune", "2", "-o", str(tmp_path / "own.wav")])
    plain, own = (load_audio(tmp_path / name, 24_000) for name in ("plain.wav", "own.wav"))
    assert plain.shape != own.shape or not torch.equal(plain, own)


def test_the_benchmark_answers_each_request_in_its_own_voice(synthesizer: Synthesizer, heard: Voice) -> None:
    other = Voice(codes=heard.codes.flip(0), text=heard.text)
    requests = [synthesizer.request("Dogs sleep.", one, depth=3, seed=1) for one in (heard, other)]
    takes = Tuned(synthesizer, 2).speak(requests, slots=8, drafts=1)
    for take, request in zip(takes, requests, strict=True):
        own = tuned(synthesizer, request.voice, 2)
        assert torch.equal(take.codes, own.start(request).collect().codes)
