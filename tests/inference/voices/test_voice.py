"""Voices: encoded once, whatever they are given as, and forgotten when there are too many."""

import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from inference import Synthesizer, Voice
from inference.voices.prompt_audio import PLAIN, load_prompt
from inference.voices.voice import Recent, content_key
from tokenizer import AudioError

WORDS, TEXT = "What the recording says.", "Good morning, old fox."


@pytest.fixture
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


def test_a_voice_is_the_codes_and_words_of_its_prompt(synthesizer: Synthesizer, prompt_file: Path) -> None:
    voice = synthesizer.voice(prompt_file, WORDS)
    audio = load_prompt(prompt_file, 24_000, PLAIN, 8.0)
    assert torch.equal(voice.codes, synthesizer.tokenizer.encode(audio[None])[0]) and voice.text == WORDS
    assert len(voice.codes.unique()) > 4


def test_a_voice_stands_for_its_prompt(synthesizer: Synthesizer, prompt_file: Path) -> None:
    voice = synthesizer.voice(prompt_file, WORDS)
    take = synthesizer.take(TEXT, prompt_file, WORDS, depth=2, seed=1)
    for again in (
        synthesizer.take(TEXT, voice, depth=2, seed=1),
        synthesizer.take(TEXT, voice, WORDS, depth=2, seed=1),
        synthesizer.take(TEXT, Voice(codes=voice.codes.clone(), text=WORDS), depth=2, seed=1),
    ):
        assert again.audio.tobytes() == take.audio.tobytes()
    wav, _ = synthesizer.clone(TEXT, voice, depth=2, seed=1)
    assert wav.tobytes() == take.audio.tobytes()
    with pytest.raises(ValueError, match=r"^this voice says 'What the .*', not 'A dog\.': leave"):
        synthesizer.take(TEXT, voice, "A dog.")
    with pytest.raises(ValueError, match=r"^the prompt text is empty"):
        synthesizer.take(TEXT, Voice(codes=voice.codes))


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
    ],
)
def test_voices_of_another_model(synthesizer: Synthesizer, codes: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        synthesizer.take(TEXT, Voice(codes=codes, text=WORDS))


def test_the_same_prompt_is_encoded_once(
    synthesizer: Synthesizer, prompt_file: Path, voice: np.ndarray, tmp_path: Path
) -> None:
    prompts, contexts = synthesizer.voices.prompts, synthesizer.voices.contexts
    synthesizer.take(TEXT, prompt_file, WORDS, depth=1)
    assert (prompts.made, prompts.used, contexts.made, contexts.used) == (1, 0, 1, 0)
    copy = tmp_path / "copy.flac"
    soundfile.write(copy, *soundfile.read(prompt_file))
    synthesizer.take(TEXT, copy, "Other words.", depth=1, seed=9)
    assert (prompts.made, prompts.used, contexts.made, contexts.used) == (1, 1, 1, 1)
    synthesizer.take(TEXT, copy, WORDS, depth=2)
    assert (prompts.made, contexts.made) == (1, 2), "another depth is another sound, of the same codes"
    synthesizer.take(TEXT, (voice[::-1], 24_000), WORDS, depth=1)
    assert (prompts.made, contexts.made) == (2, 3)


def test_with_little_memory_the_encoder_comes_for_new_prompts_only(
    bundle: Path, synthesizer: Synthesizer, prompt_file: Path
) -> None:
    frugal = Synthesizer.from_pretrained(bundle, device="cpu", low_memory=True)
    assert len(frugal.tokenizer.encoder) == 0
    for seed in range(2):
        take = frugal.take(TEXT, prompt_file, WORDS, depth=2, seed=seed)
        assert (
            take.audio.tobytes()
            == synthesizer.take(TEXT, prompt_file, WORDS, depth=2, seed=seed).audio.tobytes()
        )
    assert (frugal.voices.prompts.made, len(frugal.tokenizer.encoder)) == (1, 0)


def test_a_bad_prompt_is_not_remembered(synthesizer: Synthesizer, tmp_path: Path, voice: np.ndarray) -> None:
    path = tmp_path / "prompt.wav"
    with pytest.raises(AudioError, match=r"prompt\.wav"):
        synthesizer.voice(path, WORDS)
    soundfile.write(path, voice, 24_000)
    assert len(synthesizer.voice(path, WORDS).codes) == 15


def test_voices_are_known_by_what_they_hold() -> None:
    codes = torch.arange(12).view(4, 3)
    keys = [
        content_key(codes),
        content_key(codes.t().contiguous().t()),
        content_key(codes.view(3, 4)),
        content_key(codes.int()),
        content_key(codes + 1),
    ]
    assert keys[0] == keys[1] == Voice(codes=codes).key and len(set(keys)) == 4


def test_the_least_recently_used_go_first() -> None:
    recent, made = Recent[list[int]](10, len), []

    def of(name: str, size: int) -> list[int]:
        def make() -> list[int]:
            made.append(name)
            return [0] * size

        return recent.of(name, make)

    for name in "aba":
        of(name, 4)
    of("c", 3)  # 11 in all: b, used longest ago, goes
    of("a", 4)
    of("c", 3)
    assert made == ["a", "b", "c"] and (recent.made, recent.used, len(recent)) == (3, 3, 2)
    of("b", 4)
    assert made == ["a", "b", "c", "b"] and len(recent) == 2
    of("huge", 99)
    of("huge", 99)
    assert made[4:] == ["huge"] and len(recent) == 1, "what is asked for is kept, whatever its size"


def test_what_fails_is_tried_again() -> None:
    recent = Recent[int](10, lambda _: 1)
    with pytest.raises(ZeroDivisionError):
        recent.of("a", lambda: 1 // 0)
    assert len(recent) == 0 and recent.of("a", lambda: 5) == 5


def test_threads_that_ask_at_once_wait_for_one_of_them() -> None:
    recent, asked, go = Recent[int](10, lambda _: 1), threading.Barrier(4), threading.Event()

    def make() -> int:
        assert go.wait(10)
        return 5

    def ask() -> None:
        asked.wait(10)
        answers.append(recent.of("slow", make))

    answers: list[int] = []
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    asked.wait(10)
    assert recent.of("quick", lambda: 7) == 7, "others are not held up"
    go.set()
    for thread in threads:
        thread.join()
    assert answers == [5, 5, 5] and (recent.made, recent.used) == (2, 2)


def test_what_is_not_kept_is_let_go_once_and_what_is_being_made_stays() -> None:
    gone: list[str] = []
    recent = Recent[str](2, lambda _: 1, gone.append)

    def slow() -> str:
        for name in "abc":
            recent.of(name, lambda name=name: name)
        return "slow"

    assert recent.of("slow", slow) == "slow"  # the oldest until it is there, and the newest then
    assert gone == ["a", "b"] and len(recent) == 2
    assert recent.of("c", lambda: "again") == "c" and gone == ["a", "b"]
