"""A voice brings what the decoder's last projection lacks of it, and takes it to wherever it speaks."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from eval.seed_tts.synthesize import Tuned
from inference import Synthesizer
from inference.cli.main import main
from inference.synthesis.batch import together
from inference.voices.catvoice_file import load_voice, read_voice, saved_voice, write_voice
from inference.voices.decoder_adaptation import timbre_of
from inference.voices.voice import Voice
from tests.tokenizer.layers.test_vocoder_decoder import tokenizer as with_vocoder
from tokenizer import AudioTokenizer, discriminators
from tokenizer.discriminators import Discriminators, generator_loss
from tokenizer.io.audio import load_audio
from training.audio_tokenizer.losses import MultiScaleMelLoss

WORDS, TEXT = "What the recording says.", "Dogs sleep."


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    """Its decoder ends in a vocoder, and sings."""
    plain = Synthesizer.from_pretrained(bundle, device="cpu")
    return Synthesizer(plain.tts, plain.text, with_vocoder(melodic=True))


@pytest.fixture(scope="module")
def heard(synthesizer: Synthesizer, prompt_file: Path) -> Voice:
    return synthesizer.voice(prompt_file, WORDS)


def rebuilt(tokenizer: AudioTokenizer, voice: Voice, timbre: Tensor | None) -> Tensor:
    cache = tokenizer.decoder_cache()
    if timbre is not None:
        cache.tint(0, timbre)
    return tokenizer.decode(voice.codes[None], cache)


@pytest.mark.parametrize("outer", [torch.enable_grad, torch.inference_mode])
def test_the_prompt_comes_nearer_to_the_recording_and_keeps_its_pitch(
    synthesizer: Synthesizer, heard: Voice, outer: type
) -> None:
    tokenizer, audio = synthesizer.tokenizer, heard.audio
    assert audio is not None
    before = {name: weight.clone() for name, weight in tokenizer.named_parameters()}
    with outer():
        timbre = timbre_of(tokenizer, heard.codes, audio, None)
    assert all(torch.equal(before[name], weight) for name, weight in tokenizer.named_parameters())
    assert not timbre[0].any() and timbre[1:].any(1).all() and not timbre.requires_grad
    distance = MultiScaleMelLoss(24_000, (1024,))
    plain, own = (rebuilt(tokenizer, heard, one)[:, : len(audio)] for one in (None, timbre))
    assert distance(own, audio[None]) < 0.985 * distance(plain, audio[None])


def test_before_a_judge_it_sounds_like_speech(synthesizer: Synthesizer, heard: Voice) -> None:
    """The judge is random, and has strong opinions; it is left as it was."""
    judge = Discriminators(discriminators.mini()).requires_grad_(False)
    for name, gain in judge.named_parameters():
        if name.endswith("original0"):
            gain.mul_(4)
    before, disliked = [weight.clone() for weight in judge.parameters()], []
    for one in (None, judge):
        alone = Synthesizer(synthesizer.tts, synthesizer.text, synthesizer.tokenizer, judge=one)
        audio = rebuilt(alone.tokenizer, heard, alone.voices.timbre(heard))
        disliked.append(generator_loss(judge(audio)).item())
    assert disliked[1] < 0.99 * disliked[0]
    assert all(torch.equal(*pair) for pair in zip(before, judge.parameters(), strict=True))


def test_it_is_heard_in_takes_and_learnt_once(synthesizer: Synthesizer, prompt_file: Path) -> None:
    alone = Synthesizer(synthesizer.tts, synthesizer.text, synthesizer.tokenizer)
    voice = alone.voice(prompt_file, WORDS)
    own = [alone.take(TEXT, prompt_file, WORDS, depth=depth, seed=1) for depth in (2, 6, 6)]
    assert alone.voices.timbres.made == 1
    plain = alone.take(TEXT, replace(voice, audio=None), seed=1)
    assert torch.equal(own[1].codes, plain.codes) and (own[1].audio != plain.audio).any()
    assert np.array_equal(own[1].audio, own[2].audio)
    known = replace(voice, audio=None, timbre=alone.voices.timbre(voice))
    assert np.array_equal(alone.take(TEXT, known, seed=1).audio, own[1].audio)


def test_each_voice_of_a_batch_has_its_own(synthesizer: Synthesizer, heard: Voice) -> None:
    """Voices with and without one come and go."""
    synthesizer = Synthesizer(synthesizer.tts, synthesizer.text, with_vocoder())  # phases add up last bits
    other = replace(heard, codes=heard.codes.flip(0))
    voices = [heard, replace(heard, audio=None), other, heard, replace(other, audio=None)]
    requests = [
        synthesizer.request(TEXT, voice, depth=3, seed=i, max_seconds=0.3 + 0.16 * i)
        for i, voice in enumerate(voices)
    ]
    takes = together(synthesizer, synthesizer.engine(2), requests)
    for request, take in zip(requests, takes, strict=True):
        alone = synthesizer.start(request).collect()
        assert torch.equal(take.codes, alone.codes)
        np.testing.assert_allclose(take.audio, alone.audio, atol=1e-5)


def test_a_saved_voice_keeps_it(synthesizer: Synthesizer, heard: Voice, tmp_path: Path) -> None:
    path, config = tmp_path / "ann.catvoice", synthesizer.tts.config
    write_voice(path, saved_voice(synthesizer.voices, heard))
    timbre, loaded = synthesizer.voices.timbre(heard), synthesizer.voice(path)
    assert timbre is not None and loaded.timbre is not None and loaded.audio is None
    torch.testing.assert_close(loaded.timbre, timbre, atol=1e-5, rtol=1e-3)
    assert read_voice(path).timbre is not None
    codes = synthesizer.take(TEXT, heard, seed=1).codes
    assert torch.equal(synthesizer.take(TEXT, path, seed=1).codes, codes)

    retrained = AudioTokenizer(synthesizer.tokenizer.config)
    retrained.load_state_dict(synthesizer.tokenizer.state_dict())
    with torch.no_grad():
        retrained.decoder[-1].project_out.get_parameter("weight").mul_(1.01)
    assert load_voice(path, retrained, config).timbre is None, "it is of another decoder"


def test_one_of_another_decoder_is_refused(synthesizer: Synthesizer, heard: Voice) -> None:
    with pytest.raises(ValueError, match="the timbre of another decoder"):
        synthesizer.take(TEXT, replace(heard, timbre=torch.zeros(3, 5)))


def test_without_a_vocoder_or_a_recording_there_is_none(bundle: Path, prompt_file: Path) -> None:
    plain = Synthesizer.from_pretrained(bundle, device="cpu")
    assert plain.voices.timbre(plain.voice(prompt_file, WORDS)) is None
    with pytest.raises(ValueError, match="the timbre of another decoder"):
        plain.voice(replace(plain.voice(prompt_file, WORDS), timbre=torch.zeros(3, 5)))


def test_the_benchmark_may_leave_it_out(synthesizer: Synthesizer, heard: Voice) -> None:
    request = synthesizer.request(TEXT, heard, depth=3, seed=1)
    own, plain = (Tuned(synthesizer, steps).speak([request], 2, 1)[0] for steps in (0, None))
    assert np.array_equal(own.audio, synthesizer.start(request).collect().audio)
    without = replace(request, voice=replace(heard, audio=None))
    assert np.array_equal(plain.audio, synthesizer.start(without).collect().audio)
    assert (own.audio != plain.audio).any()


def test_the_command_learns_it(
    bundle: Path, prompt_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(tmp_path / "model")
    shutil.copytree(bundle / "tts", tmp_path / "model" / "tts")
    with_vocoder(melodic=True).save_pretrained(tmp_path / "model" / "tokenizer")
    said = [str(prompt_file), "--prompt-text", WORDS, "--model", model, "--device", "cpu"]
    for name, tune in (("usual", []), ("decoder", ["--tune", "0"]), ("plain", ["--tune", "None"])):
        main(["clone", *said, "--text", "Dogs.", *tune, "-o", str(tmp_path / f"{name}.wav")])
    usual, decoder, plain = ((tmp_path / f"{one}.wav").read_bytes() for one in ("usual", "decoder", "plain"))
    assert usual == decoder != plain and len(usual) == len(plain)

    capsys.readouterr()
    voice, saved = str(tmp_path / "ann.catvoice"), tmp_path / "saved.wav"
    main(["voice", "save", *said, "-o", voice])
    assert "timbre: known" in capsys.readouterr().out
    main(["clone", voice, "--model", model, "--device", "cpu", "--text", "Dogs.", "-o", str(saved)])
    audio, own = load_audio(saved, 24_000), load_audio(tmp_path / "usual.wav", 24_000)
    torch.testing.assert_close(audio, own, atol=2e-3, rtol=0)
