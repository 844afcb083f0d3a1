"""Voices are encoded once, in whatever form they come, and evicted when there are too many."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from inference import Synthesizer, Voice
from inference.engine.options import UNWATCHED, SynthesisOptions
from inference.voices.prompt_audio import PLAIN, prepare, read_recording
from inference.voices.voice import content_key
from tokenizer import AudioError

PROMPT_TEXT, TEXT = "What the recording says.", "Good morning, old fox."


@pytest.fixture
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


def test_a_voice_has_the_codes_and_transcript_of_its_prompt(
    synthesizer: Synthesizer, prompt_file: Path
) -> None:
    voice = synthesizer.load_voice(prompt_file, PROMPT_TEXT)
    audio = prepare(read_recording(prompt_file), 24_000, PLAIN, 8.0)
    assert (
        torch.equal(voice.codes, synthesizer.tokenizer.encode(audio[None])[0]) and voice.text == PROMPT_TEXT
    )
    assert len(voice.codes.unique()) > 4


def test_a_voice_replaces_its_prompt(synthesizer: Synthesizer, prompt_file: Path) -> None:
    options = {"depth": 2, "seed": 1, "policy": UNWATCHED}
    wav, _ = synthesizer.clone(TEXT, prompt_file, PROMPT_TEXT, **options)
    voice = synthesizer.load_voice(prompt_file, PROMPT_TEXT)
    same = Voice(codes=voice.codes.clone(), text=PROMPT_TEXT)
    for each in (voice, synthesizer.load_voice(voice), synthesizer.load_voice(voice, PROMPT_TEXT), same):
        result = synthesizer.synthesize(TEXT, each, SynthesisOptions(**options))
        assert result.audio.tobytes() == wav.tobytes()
    with pytest.raises(ValueError, match=r"^this voice says 'What the .*', not 'A dog\.': leave"):
        synthesizer.load_voice(voice, "A dog.")
    with pytest.raises(ValueError, match=r"^the prompt text is empty"):
        synthesizer.synthesize(TEXT, Voice(codes=voice.codes))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (
            torch.zeros(5, 7).long(),
            "^a voice of 5 frames with 7 codes: this model takes 1 to 100 with 6; ",
        ),
        (torch.zeros(101, 6).long(), "^a voice of 101 frames"),
        (torch.zeros(0, 6).long(), "^a voice of 0 frames"),
        (torch.full((5, 6), 32), "^a voice with codes beyond 31: make"),
        (torch.full((5, 6), -1), "^a voice with codes beyond 31"),
        (torch.zeros(6).long(), r"^a voice needs whole numbers \[t, k\] as its codes"),
        (torch.zeros(5, 6), "^a voice needs whole numbers"),
        ([[0] * 6] * 5, "^a voice needs whole numbers"),
    ],
)
def test_voices_of_another_model(synthesizer: Synthesizer, codes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        synthesizer.synthesize(TEXT, Voice(codes=codes, text=PROMPT_TEXT), SynthesisOptions(policy=UNWATCHED))


def test_the_same_prompt_is_encoded_once(
    synthesizer: Synthesizer, prompt_file: Path, voice: np.ndarray, tmp_path: Path
) -> None:
    prompts, contexts = synthesizer.voices.prompts, synthesizer.voices.contexts
    synthesizer.synthesize(
        TEXT, synthesizer.load_voice(prompt_file, PROMPT_TEXT), SynthesisOptions(depth=1, policy=UNWATCHED)
    )
    assert (prompts.misses, prompts.hits, contexts.misses, contexts.hits) == (1, 0, 1, 0)
    copy = tmp_path / "copy.flac"
    soundfile.write(copy, *soundfile.read(prompt_file))
    synthesizer.synthesize(
        TEXT,
        synthesizer.load_voice(copy, "Other words."),
        SynthesisOptions(depth=1, seed=9, policy=UNWATCHED),
    )
    assert (prompts.misses, prompts.hits, contexts.misses, contexts.hits) == (1, 1, 1, 1)
    synthesizer.synthesize(
        TEXT, synthesizer.load_voice(copy, PROMPT_TEXT), SynthesisOptions(depth=2, policy=UNWATCHED)
    )
    assert (prompts.misses, contexts.misses) == (1, 2), "another depth is another sound, of the same codes"
    synthesizer.synthesize(
        TEXT,
        synthesizer.load_voice((voice[::-1], 24_000), PROMPT_TEXT),
        SynthesisOptions(depth=1, policy=UNWATCHED),
    )
    assert (prompts.misses, contexts.misses) == (2, 3)


def test_with_little_memory_the_encoder_is_loaded_for_new_prompts_only(
    bundle: Path, synthesizer: Synthesizer, prompt_file: Path
) -> None:
    frugal = Synthesizer.from_pretrained(bundle, device="cpu", low_memory=True)
    assert len(frugal.tokenizer.encoder) == 0
    for seed in range(2):
        result = frugal.synthesize(
            TEXT,
            frugal.load_voice(prompt_file, PROMPT_TEXT),
            SynthesisOptions(depth=2, seed=seed, policy=UNWATCHED),
        )
        assert (
            result.audio.tobytes()
            == synthesizer.synthesize(
                TEXT,
                synthesizer.load_voice(prompt_file, PROMPT_TEXT),
                SynthesisOptions(depth=2, seed=seed, policy=UNWATCHED),
            ).audio.tobytes()
        )
    assert (frugal.voices.prompts.misses, len(frugal.tokenizer.encoder)) == (1, 0)


def test_a_bad_prompt_is_not_cached(synthesizer: Synthesizer, tmp_path: Path, voice: np.ndarray) -> None:
    path = tmp_path / "prompt.wav"
    with pytest.raises(AudioError, match=r"prompt\.wav"):
        synthesizer.load_voice(path, PROMPT_TEXT)
    soundfile.write(path, voice, 24_000)
    assert len(synthesizer.load_voice(path, PROMPT_TEXT).codes) == 15


def test_content_key() -> None:
    codes = torch.arange(12).view(4, 3)
    keys = [
        content_key(codes),
        content_key(codes.t().contiguous().t()),
        content_key(codes.view(3, 4)),
        content_key(codes.int()),
        content_key(codes + 1),
    ]
    assert keys[0] == keys[1] == Voice(codes=codes).key and len(set(keys)) == 4
