"""The embedded model: small enough to carry, and it speaks."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from cat_tts.asr.ctc_score import heard
from cat_tts.sequences.rows import positions, speaking_pace, training_rows, untold_rows
from inference import Synthesizer
from inference.synthesis.loading import DEFAULT_MODEL
from tokenizer import load_audio
from training.audio_tokenizer.losses import MultiScaleMelLoss

PROMPT = DEFAULT_MODEL / "prompt.flac"
WORDS = (DEFAULT_MODEL / "prompt.txt").read_text()
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
    take = synthesizer().take(TEXT, PROMPT, WORDS, depth=depth)
    assert take.stop_reason == "end", "it should know when the text is spoken"
    assert 0.8 < take.seconds < 5
    level = 20 * np.log10(np.sqrt(np.mean(np.square(take.audio))))
    assert -35 < level < -12, "speech, about as loud as the corpus"
    assert take.codes.unique().numel() > 10


def test_longer_texts_take_longer() -> None:
    long = synthesizer().take(f"{TEXT} She walked slowly along the river to the old house.", PROMPT, WORDS)
    assert long.seconds > 1.5 * synthesizer().take(TEXT, PROMPT, WORDS).seconds


def test_it_reads_its_text() -> None:
    """First codes of real speakers whom it has never heard are likelier given what they say than given
    what others do, or nothing."""
    model, text = synthesizer().tts, synthesizer().text
    prompts = [PROMPT, *sorted((DEFAULT_MODEL / "voices").glob("*.flac"))]
    words = [prompt.with_suffix(".txt").read_text() for prompt in prompts]
    encode, depth = synthesizer().tokenizer.encode, model.config.num_codebooks
    codes = [encode(load_audio(prompt)[None], depth)[0] for prompt in prompts]

    def loss(i: int, said: str, told: bool = True) -> float:
        rows = training_rows(model.config, text, said, codes[i])
        heard = rows if told else untold_rows(model.config, rows)
        places = positions(model.config, rows, speaking_pace(model.config, text.encode(said), len(codes[i])))
        states = model.states(model.embed(heard[None, :-1], 4), positions=places[None, :-1])[0]
        first = model.frame_logits(states[-len(codes[i]) - 1 : -1], rows[-len(codes[i]) - 1 : -1, :2])[1]
        return float(torch.nn.functional.cross_entropy(first[:, 0], codes[i][:, 0]))

    with torch.no_grad():
        own = [loss(i, words[i]) for i in range(len(prompts))]
        others = [loss(i, words[i - 1]) for i in range(len(prompts))]
        untold = [loss(i, words[i], told=False) for i in range(len(prompts))]
    assert np.mean(own) < np.mean(others) - 0.5
    assert np.mean(own) < np.mean(untold) - 0.3


def test_it_hears_what_is_said() -> None:
    """Real speakers, whom it has never heard, are better understood to say their own words than others'."""
    listener, speak = synthesizer().listener, synthesizer()
    assert listener is not None
    prompts = [PROMPT, *sorted((DEFAULT_MODEL / "voices").glob("*.flac"))]
    words = [prompt.with_suffix(".txt").read_text() for prompt in prompts]
    codes = [speak.voice(prompt, said).codes for prompt, said in zip(prompts, words, strict=True)]
    found = [[max(heard(listener, [one], said)[0], -9.0) for said in words] for one in codes]
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


def test_its_judge_tells_recordings_from_what_is_rebuilt() -> None:
    judge, tokenizer = synthesizer().voices.judge, synthesizer().tokenizer
    assert judge is not None
    for prompt in (PROMPT, *sorted((DEFAULT_MODEL / "voices").glob("*.flac"))):
        audio = load_audio(prompt)[None]
        rebuilt = tokenizer.decode(tokenizer.encode(audio))[:, : audio.shape[1]]
        real, fake = (float(judge(one)[0].logits.mean()) for one in (audio, rebuilt))
        assert real > fake + 0.1


def test_its_decoder_learns_a_timbre() -> None:
    """The prompt rebuilt of its codes comes nearer to the recording, by the seven-scale mel distance."""
    heard = synthesizer().voice(PROMPT, WORDS)
    audio = heard.audio
    assert audio is not None
    tokenizer, rebuilt = synthesizer().tokenizer, []
    for timbre in (None, synthesizer().voices.timbre(heard)):
        cache = tokenizer.decoder_cache()
        if timbre is not None:
            cache.tint(0, timbre)
        rebuilt.append(tokenizer.decode(heard.codes[None], cache))
    distance = MultiScaleMelLoss(24_000)
    plain, own = (float(distance(one[:, : len(audio)], audio[None])) for one in rebuilt)
    assert own < 0.98 * plain
