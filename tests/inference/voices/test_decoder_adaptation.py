"""Decoder adaptation: learnt from the recording, used in results, and saved with the voice."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from inference import Synthesizer
from inference.cli.main import main
from inference.engine.options import UNWATCHED, SynthesisOptions
from inference.synthesis.attempts import Attempts
from inference.synthesis.runner import LocalRunner
from inference.voices.catvoice_file import read_voice, restore_voice, saved_voice, write_voice
from inference.voices.decoder_adaptation import adapt_decoder
from inference.voices.prompt_audio import PLAIN, prepare, read_recording
from inference.voices.voice import Voice, Voices
from tests.tokenizer.layers.test_vocoder_decoder import tokenizer as with_vocoder
from tokenizer import AudioTokenizer
from tokenizer import discriminators as presets
from tokenizer.discriminators import Discriminators, generator_loss
from tokenizer.io.audio import load_audio
from training.audio_tokenizer.losses import MultiScaleMelLoss

PROMPT_TEXT, TEXT = "What the recording says.", "Dogs sleep."


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    """Return a model whose decoder ends in a melodic vocoder."""
    plain = Synthesizer.from_pretrained(bundle, device="cpu")
    return Synthesizer(plain.tts, plain.text_tokenizer, with_vocoder(melodic=True))


@pytest.fixture(scope="module")
def speaker(synthesizer: Synthesizer, prompt_file: Path) -> Voice:
    return synthesizer.load_voice(prompt_file, PROMPT_TEXT)


@pytest.fixture(scope="module")
def audio(prompt_file: Path) -> Tensor:
    """Return the prompt as it is encoded."""
    return prepare(read_recording(prompt_file), 24_000, PLAIN, 8.0)


def decoded(tokenizer: AudioTokenizer, voice: Voice, decoder_adaptation: Tensor | None) -> Tensor:
    cache = tokenizer.decoder_cache()
    if decoder_adaptation is not None:
        cache.set_adaptation(0, decoder_adaptation)
    return tokenizer.decode(voice.codes[None], cache)


@pytest.mark.parametrize("outer", [torch.enable_grad, torch.inference_mode])
def test_the_decoded_prompt_comes_nearer_to_the_recording(
    synthesizer: Synthesizer, speaker: Voice, audio: Tensor, outer: type
) -> None:
    tokenizer = synthesizer.tokenizer
    before = {name: weight.clone() for name, weight in tokenizer.named_parameters()}
    with outer():
        decoder_adaptation = adapt_decoder(tokenizer, speaker.codes, audio, None)
    assert all(torch.equal(before[name], weight) for name, weight in tokenizer.named_parameters())
    assert (
        not decoder_adaptation[0].any()
        and decoder_adaptation[1:].any(1).all()
        and not decoder_adaptation.requires_grad
    )
    distance = MultiScaleMelLoss(24_000, (1024,))
    plain, adapted = (decoded(tokenizer, speaker, one)[:, : len(audio)] for one in (None, decoder_adaptation))
    assert distance(adapted, audio[None]) < 0.985 * distance(plain, audio[None])


def test_discriminators_improve_the_sound(
    synthesizer: Synthesizer, speaker: Voice, prompt_file: Path
) -> None:
    """The discriminators are random with a large gain; they are not changed."""
    discriminators = Discriminators(presets.mini()).requires_grad_(False)
    for name, gain in discriminators.named_parameters():
        if name.endswith("original0"):
            gain.mul_(4)
    before, losses = [weight.clone() for weight in discriminators.parameters()], []
    for one in (None, discriminators):
        separate = Synthesizer(
            synthesizer.tts, synthesizer.text_tokenizer, synthesizer.tokenizer, discriminators=one
        )
        adaptation = separate.load_voice(prompt_file, PROMPT_TEXT).decoder_adaptation
        audio = decoded(separate.tokenizer, speaker, adaptation)
        losses.append(generator_loss(discriminators(audio)).item())
    assert losses[1] < 0.99 * losses[0]
    assert all(torch.equal(*pair) for pair in zip(before, discriminators.parameters(), strict=True))


def test_results_use_the_adaptation_which_is_learnt_once(synthesizer: Synthesizer, prompt_file: Path) -> None:
    separate = Synthesizer(synthesizer.tts, synthesizer.text_tokenizer, synthesizer.tokenizer)
    options = SynthesisOptions(seed=1, policy=UNWATCHED)
    voices = [separate.load_voice(prompt_file, PROMPT_TEXT) for _ in range(2)]
    assert separate.voices.adaptations.misses == 1
    adapted, again = (separate.synthesize(TEXT, voice, options) for voice in voices)
    assert np.array_equal(adapted.audio, again.audio)
    unadapted = separate.load_voice(prompt_file, PROMPT_TEXT, adapt_decoder=False)
    assert unadapted.decoder_adaptation is None and separate.voices.adaptations.misses == 1
    plain = separate.synthesize(TEXT, unadapted, options)
    assert torch.equal(adapted.codes, plain.codes) and (adapted.audio != plain.audio).any()
    switched_off = separate.synthesize(TEXT, voices[0], replace(options, adapt_decoder=False))
    assert np.array_equal(switched_off.audio, plain.audio)


def test_each_voice_of_a_batch_has_its_adaptation(synthesizer: Synthesizer, speaker: Voice) -> None:
    """Voices with and without an adaptation join and leave."""
    tokenizer = with_vocoder()  # without melody: its phases add up last bits
    synthesizer = Synthesizer(synthesizer.tts, synthesizer.text_tokenizer, tokenizer)
    assert speaker.decoder_adaptation is not None
    adaptation = 0.01 * torch.randn(speaker.decoder_adaptation.shape)
    speaker = replace(speaker, decoder_adaptation=adaptation)
    other = replace(speaker, codes=speaker.codes.flip(0))
    voices = [speaker, speaker.unadapted(), other, speaker, other.unadapted()]
    requests = [
        synthesizer.request(TEXT, voice, SynthesisOptions(depth=3, seed=i, max_seconds=0.3 + 0.16 * i))
        for i, voice in enumerate(voices)
    ]
    results = Attempts(LocalRunner(synthesizer, 2), UNWATCHED).run(requests)
    for request, result in zip(requests, results, strict=True):
        separate = LocalRunner(synthesizer).stream(request).collect()
        assert torch.equal(result.codes, separate.codes)
        np.testing.assert_allclose(result.audio, separate.audio, atol=1e-5)


def test_a_saved_voice_keeps_its_adaptation(synthesizer: Synthesizer, speaker: Voice, tmp_path: Path) -> None:
    path, options = tmp_path / "ann.catvoice", SynthesisOptions(seed=1, policy=UNWATCHED)
    write_voice(path, saved_voice(synthesizer.voices, speaker))
    loaded = synthesizer.load_voice(path)
    assert speaker.decoder_adaptation is not None and loaded.decoder_adaptation is not None
    torch.testing.assert_close(loaded.decoder_adaptation, speaker.decoder_adaptation, atol=1e-5, rtol=1e-3)
    assert read_voice(path).decoder_adaptation is not None
    codes = synthesizer.synthesize(TEXT, speaker, options).codes
    assert torch.equal(synthesizer.synthesize(TEXT, loaded, options).codes, codes)
    assert synthesizer.load_voice(path, adapt_decoder=False).decoder_adaptation is None

    retrained = AudioTokenizer(synthesizer.tokenizer.config)
    retrained.load_state_dict(synthesizer.tokenizer.state_dict())
    with torch.no_grad():
        retrained.decoder[-1].project_out.get_parameter("weight").mul_(1.01)
    voices = Voices(retrained, synthesizer.tts.config, PLAIN)
    assert restore_voice(voices, read_voice(path)).decoder_adaptation is None, "it is of another decoder"


def test_an_adaptation_of_another_decoder_is_refused(synthesizer: Synthesizer, speaker: Voice) -> None:
    with pytest.raises(ValueError, match="adapted to another decoder"):
        synthesizer.synthesize(
            TEXT, replace(speaker, decoder_adaptation=torch.zeros(3, 5)), SynthesisOptions(policy=UNWATCHED)
        )


def test_without_a_vocoder_there_is_no_adaptation(bundle: Path, prompt_file: Path) -> None:
    plain = Synthesizer.from_pretrained(bundle, device="cpu")
    voice = plain.load_voice(prompt_file, PROMPT_TEXT)
    assert voice.decoder_adaptation is None
    with pytest.raises(ValueError, match="adapted to another decoder"):
        plain.load_voice(replace(voice, decoder_adaptation=torch.zeros(3, 5)))


def test_the_command_adapts_the_decoder(
    bundle: Path, prompt_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(tmp_path / "model")
    shutil.copytree(bundle / "tts", tmp_path / "model" / "tts")
    with_vocoder(melodic=True).save_pretrained(tmp_path / "model" / "tokenizer")
    arguments = [str(prompt_file), "--prompt-text", PROMPT_TEXT, "--model", model, "--device", "cpu"]
    for name, options in (
        ("usual", []),
        ("decoder", ["--adapt-steps", "0"]),
        ("plain", ["--no-adapt-decoder"]),
        ("old", ["--adapt-steps", "None"]),
    ):
        main(["clone", *arguments, "--text", "Dogs.", *options, "-o", str(tmp_path / f"{name}.wav")])
    names = ("usual", "decoder", "plain", "old")
    usual, decoder, plain, old = ((tmp_path / f"{name}.wav").read_bytes() for name in names)
    assert usual == decoder != plain == old and len(usual) == len(plain)
    assert capsys.readouterr().err == (
        "--adapt-steps None is now --no-adapt-decoder; the old name goes with the next version\n"
    )
    voice, saved = str(tmp_path / "ann.catvoice"), tmp_path / "saved.wav"
    main(["voice", "save", *arguments, "-o", voice])
    assert "decoder adaptation: saved" in capsys.readouterr().out
    main(["clone", voice, "--model", model, "--device", "cpu", "--text", "Dogs.", "-o", str(saved)])
    audio, adapted = load_audio(saved, 24_000), load_audio(tmp_path / "usual.wav", 24_000)
    torch.testing.assert_close(audio, adapted, atol=2e-3, rtol=0)
