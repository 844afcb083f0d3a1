"""The embedded model: small enough to carry, and it speaks."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from cat_tts.asr.ctc_score import ctc_score
from cat_tts.sequences.formats import build_example
from cat_tts.sequences.rows import unconditional_rows
from inference import Synthesizer
from inference.engine.options import UNWATCHED, SynthesisOptions
from inference.synthesis.loading import DEFAULT_MODEL
from inference.voices.prompt_audio import PLAIN, prepare, read_recording
from tokenizer import load_audio
from training.audio_tokenizer.losses import MultiScaleMelLoss

PROMPT = DEFAULT_MODEL / "prompt.flac"
TRANSCRIPT = (DEFAULT_MODEL / "prompt.txt").read_text()
TEXT = "The weather is nice today."


@cache
def synthesizer() -> Synthesizer:
    return Synthesizer.from_pretrained(device="cpu")


def test_weights_fit_into_the_repository() -> None:
    sizes = [path.stat().st_size for path in Path(DEFAULT_MODEL).rglob("*") if path.is_file()]
    assert max(sizes) < 95e6 and sum(sizes) < 120e6


def test_card_is_there() -> None:
    card = (DEFAULT_MODEL / "README.md").read_text()
    assert all(word in card for word in ("licence", "WER", "STOI", "steps", "seed"))


@pytest.mark.parametrize("depth", [1, 8, None])
def test_it_speaks_at_any_depth(depth: int | None) -> None:
    result = synthesizer().synthesize(
        TEXT, synthesizer().load_voice(PROMPT, TRANSCRIPT), SynthesisOptions(depth=depth, policy=UNWATCHED)
    )
    assert result.stop_reason == "end", "it should know when the text is spoken"
    assert 0.8 < result.seconds < 5
    level = 20 * np.log10(np.sqrt(np.mean(np.square(result.audio))))
    assert -35 < level < -12, "speech, about as loud as the corpus"
    assert result.codes.unique().numel() > 10


def test_longer_texts_take_longer() -> None:
    long = synthesizer().synthesize(
        f"{TEXT} She walked slowly along the river to the old house.",
        synthesizer().load_voice(PROMPT, TRANSCRIPT),
        SynthesisOptions(policy=UNWATCHED),
    )
    assert (
        long.seconds
        > 1.5
        * synthesizer()
        .synthesize(TEXT, synthesizer().load_voice(PROMPT, TRANSCRIPT), SynthesisOptions(policy=UNWATCHED))
        .seconds
    )


def test_it_reads_its_text() -> None:
    """First codes of speakers who are not in the training data are likelier with their own text than with
    another, or none."""
    model, tokenizer = synthesizer().tts, synthesizer().text_tokenizer
    config = model.config
    prompts = [PROMPT, *sorted((DEFAULT_MODEL / "voices").glob("*.flac"))]
    words = [prompt.with_suffix(".txt").read_text() for prompt in prompts]
    encode, depth = synthesizer().tokenizer.encode, model.config.num_codebooks
    codes = [encode(load_audio(prompt)[None], depth)[0] for prompt in prompts]

    def loss(i: int, spoken: str, conditional: bool = True) -> float:
        example = build_example(config, tokenizer, spoken, codes[i])
        rows = example.rows if conditional else unconditional_rows(config, example.rows)
        states = model.states(model.embed(rows[None], 4), positions=example.positions[None])[0]
        frames = slice(-len(codes[i]) - 1, -1)
        first = model.frame_logits(states[frames], example.targets[frames, :2])[1]
        return float(torch.nn.functional.cross_entropy(first[:, 0], codes[i][:, 0]))

    with torch.no_grad():
        true = [loss(i, words[i]) for i in range(len(prompts))]
        others = [loss(i, words[i - 1]) for i in range(len(prompts))]
        unconditional = [loss(i, words[i], conditional=False) for i in range(len(prompts))]
    assert np.mean(true) < np.mean(others) - 0.5
    assert np.mean(true) < np.mean(unconditional) - 0.3


def test_its_asr_model_recognizes_what_is_said() -> None:
    """Recordings of speakers who are not in the training data score best with their own text."""
    asr_model, speak = synthesizer().asr_model, synthesizer()
    assert asr_model is not None
    prompts = [PROMPT, *sorted((DEFAULT_MODEL / "voices").glob("*.flac"))]
    words = [prompt.with_suffix(".txt").read_text() for prompt in prompts]
    codes = [speak.load_voice(prompt, printed).codes for prompt, printed in zip(prompts, words, strict=True)]
    found = [[max(ctc_score(asr_model, [one], printed)[0], -9.0) for printed in words] for one in codes]
    own = np.diag(found)
    others = np.array(found)[~np.eye(len(prompts), dtype=bool)]
    assert own.min() > others.max()
    assert own.mean() > -1.5


def test_reconstruction_follows_the_prompt() -> None:
    """More codebooks come closer, measured as the multi-scale mel distance."""
    tokenizer, audio = synthesizer().tokenizer, load_audio(PROMPT)[None]
    codes, distance = tokenizer.encode(audio), MultiScaleMelLoss(24_000)
    near = [float(distance(tokenizer.decode(codes[..., :k])[:, : audio.shape[1]], audio)) for k in (1, 4, 32)]
    assert near[0] > near[1] > near[2] * 0.99
    assert near[2] < 2.0


def test_its_discriminators_tell_recordings_from_reconstructions() -> None:
    discriminators, tokenizer = synthesizer().voices.discriminators, synthesizer().tokenizer
    assert discriminators is not None
    for prompt in (PROMPT, *sorted((DEFAULT_MODEL / "voices").glob("*.flac"))):
        audio = load_audio(prompt)[None]
        rebuilt = tokenizer.decode(tokenizer.encode(audio))[:, : audio.shape[1]]
        real, fake = (float(discriminators(one)[0].logits.mean()) for one in (audio, rebuilt))
        assert real > fake + 0.1


def test_its_decoder_adapts_to_a_voice() -> None:
    """The prompt rebuilt of its codes comes nearer to the recording, by the seven-scale mel distance."""
    voice, models = synthesizer().load_voice(PROMPT, TRANSCRIPT), synthesizer()
    audio = prepare(read_recording(PROMPT), 24_000, PLAIN, models.max_prompt_seconds)
    tokenizer, rebuilt = models.tokenizer, []
    for decoder_adaptation in (None, voice.decoder_adaptation):
        cache = tokenizer.decoder_cache()
        if decoder_adaptation is not None:
            cache.set_adaptation(0, decoder_adaptation)
        rebuilt.append(tokenizer.decode(voice.codes[None], cache))
    distance = MultiScaleMelLoss(24_000)
    plain, own = (float(distance(one[:, : len(audio)], audio[None])) for one in rebuilt)
    assert own < 0.98 * plain
