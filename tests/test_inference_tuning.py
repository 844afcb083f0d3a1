"""A copy of the model that is trained on a prompt speaks more like it, and the model stays as it was."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_tokenizer_vocoder_decoder import tokenizer as with_vocoder
from torch import Tensor

from cat_tts.rows import example_rows
from cat_tts.sequence import shifted_targets
from eval.seed_tts_speak import Tuned
from inference import Synthesizer
from inference.cli import main
from inference.tuning import tuned
from inference.voice import Voice
from tokenizer import discriminators
from tokenizer.audio import load_audio
from tokenizer.discriminators import Discriminators, generator_loss
from training.losses import MultiScaleMelLoss

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
    assert made.tokenizer is synthesizer.tokenizer and made.sampling == synthesizer.sampling
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
    with pytest.raises(SystemExit):
        main(["clone", str(prompt_file), "--prompt-text", WORDS, "--text", "Dogs.", "--tune", str(steps)])
    assert f"{steps} steps to tune" in capsys.readouterr().err


@pytest.mark.parametrize("outer", [torch.enable_grad, torch.inference_mode])
def test_the_decoder_comes_nearer_to_the_recording_and_keeps_its_pitch(
    synthesizer: Synthesizer, prompt_file: Path, outer: type
) -> None:
    melodic = Synthesizer(synthesizer.tts, synthesizer.text, with_vocoder(melodic=True))
    heard = melodic.voice(prompt_file, WORDS)
    with outer():
        made = tuned(melodic, heard, 0)
    assert made.tts is synthesizer.tts
    before, after = (dict(one.tokenizer.named_parameters()) for one in (melodic, made))
    own = [name for name, weight in after.items() if weight is not before[name]]
    assert own == [name := f"decoder.{len(melodic.tokenizer.decoder) - 1}.project_out.weight"]
    assert torch.equal(after[name][0], before[name][0]) and not torch.equal(after[name], before[name])

    distance, audio = MultiScaleMelLoss(24_000, (1024,)), load_audio(prompt_file)[None]
    rebuilt = [one.tokenizer.decode(heard.codes[None])[:, : audio.shape[1]] for one in (melodic, made)]
    assert distance(rebuilt[1], audio) < 0.985 * distance(rebuilt[0], audio)
    plain, own = (one.take("Dogs sleep.", heard, seed=1) for one in (melodic, made))
    assert torch.equal(plain.codes, own.codes) and (plain.audio != own.audio).any()


def test_before_a_judge_the_decoder_is_tuned_to_sound_like_speech(
    synthesizer: Synthesizer, prompt_file: Path
) -> None:
    """The judge is random, and knows what it likes; it is left as it was."""
    judge = Discriminators(discriminators.mini()).requires_grad_(False)
    before, codec = [weight.clone() for weight in judge.parameters()], with_vocoder()
    disliked = []
    for one in (None, judge):
        alone = Synthesizer(synthesizer.tts, synthesizer.text, codec, judge=one)
        heard = alone.voice(prompt_file, WORDS)
        made = tuned(alone, heard, 0)
        assert made.judge is one
        disliked.append(generator_loss(judge(made.tokenizer.decode(heard.codes[None]))).item())
    assert disliked[1] < disliked[0]
    assert all(torch.equal(*pair) for pair in zip(before, judge.parameters(), strict=True))


def test_where_there_is_nothing_to_tune_the_decoder_by_it_is_shared(
    synthesizer: Synthesizer, heard: Voice
) -> None:
    assert tuned(synthesizer, heard, 1).tokenizer is synthesizer.tokenizer, "it ends in no vocoder"
    melodic = Synthesizer(synthesizer.tts, synthesizer.text, with_vocoder())
    saved = Voice(codes=heard.codes, text=heard.text)
    assert tuned(melodic, saved, 1).tokenizer is melodic.tokenizer
    for one, voice in ((synthesizer, heard), (melodic, saved)):
        with pytest.raises(ValueError, match="0 steps tune the decoder alone, to a recording"):
            tuned(one, voice, 0)


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


def test_the_command_tunes_a_decoder_that_can_be(bundle: Path, prompt_file: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle / "tts", tmp_path / "model" / "tts")
    with_vocoder(melodic=True).save_pretrained(tmp_path / "model" / "tokenizer")
    said = ["clone", str(prompt_file), "--prompt-text", WORDS, "--text", "Dogs.", "--device", "cpu"]
    for name, tune in (("usual", []), ("decoder", ["--tune", "0"]), ("plain", ["--tune", "None"])):
        main([*said, "--model", str(tmp_path / "model"), *tune, "-o", str(tmp_path / f"{name}.wav")])
    usual, decoder, plain = ((tmp_path / f"{one}.wav").read_bytes() for one in ("usual", "decoder", "plain"))
    assert usual == decoder != plain and len(usual) == len(plain)
