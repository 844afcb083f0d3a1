"""Voices are encoded once, in whatever form they come, and evicted when there are too many."""

import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from inference import Synthesizer, Voice
from inference.voices.prompt_audio import PLAIN, load_prompt
from inference.voices.voice import RecentCache, content_key
from tokenizer import AudioError

PROMPT_TEXT, TEXT = "What the recording says.", "Good morning, old fox."


@pytest.fixture
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


def test_a_voice_has_the_codes_and_transcript_of_its_prompt(
    synthesizer: Synthesizer, prompt_file: Path
) -> None:
    voice = synthesizer.voice(prompt_file, PROMPT_TEXT)
    audio = load_prompt(prompt_file, 24_000, PLAIN, 8.0)
    assert (
        torch.equal(voice.codes, synthesizer.tokenizer.encode(audio[None])[0]) and voice.text == PROMPT_TEXT
    )
    assert len(voice.codes.unique()) > 4


def test_a_voice_replaces_its_prompt(synthesizer: Synthesizer, prompt_file: Path) -> None:
    voice = synthesizer.voice(prompt_file, PROMPT_TEXT)
    result = synthesizer.synthesize(TEXT, prompt_file, PROMPT_TEXT, depth=2, seed=1)
    for again in (
        synthesizer.synthesize(TEXT, voice, depth=2, seed=1),
        synthesizer.synthesize(TEXT, voice, PROMPT_TEXT, depth=2, seed=1),
        synthesizer.synthesize(TEXT, Voice(codes=voice.codes.clone(), text=PROMPT_TEXT), depth=2, seed=1),
    ):
        assert again.audio.tobytes() == result.audio.tobytes()
    wav, _ = synthesizer.clone(TEXT, voice, depth=2, seed=1)
    assert wav.tobytes() == result.audio.tobytes()
    with pytest.raises(ValueError, match=r"^this voice says 'What the .*', not 'A dog\.': leave"):
        synthesizer.synthesize(TEXT, voice, "A dog.")
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
    ],
)
def test_voices_of_another_model(synthesizer: Synthesizer, codes: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        synthesizer.synthesize(TEXT, Voice(codes=codes, text=PROMPT_TEXT))


def test_the_same_prompt_is_encoded_once(
    synthesizer: Synthesizer, prompt_file: Path, voice: np.ndarray, tmp_path: Path
) -> None:
    prompts, contexts = synthesizer.voices.prompts, synthesizer.voices.contexts
    synthesizer.synthesize(TEXT, prompt_file, PROMPT_TEXT, depth=1)
    assert (prompts.misses, prompts.hits, contexts.misses, contexts.hits) == (1, 0, 1, 0)
    copy = tmp_path / "copy.flac"
    soundfile.write(copy, *soundfile.read(prompt_file))
    synthesizer.synthesize(TEXT, copy, "Other words.", depth=1, seed=9)
    assert (prompts.misses, prompts.hits, contexts.misses, contexts.hits) == (1, 1, 1, 1)
    synthesizer.synthesize(TEXT, copy, PROMPT_TEXT, depth=2)
    assert (prompts.misses, contexts.misses) == (1, 2), "another depth is another sound, of the same codes"
    synthesizer.synthesize(TEXT, (voice[::-1], 24_000), PROMPT_TEXT, depth=1)
    assert (prompts.misses, contexts.misses) == (2, 3)


def test_with_little_memory_the_encoder_is_loaded_for_new_prompts_only(
    bundle: Path, synthesizer: Synthesizer, prompt_file: Path
) -> None:
    frugal = Synthesizer.from_pretrained(bundle, device="cpu", low_memory=True)
    assert len(frugal.tokenizer.encoder) == 0
    for seed in range(2):
        result = frugal.synthesize(TEXT, prompt_file, PROMPT_TEXT, depth=2, seed=seed)
        assert (
            result.audio.tobytes()
            == synthesizer.synthesize(TEXT, prompt_file, PROMPT_TEXT, depth=2, seed=seed).audio.tobytes()
        )
    assert (frugal.voices.prompts.misses, len(frugal.tokenizer.encoder)) == (1, 0)


def test_a_bad_prompt_is_not_cached(synthesizer: Synthesizer, tmp_path: Path, voice: np.ndarray) -> None:
    path = tmp_path / "prompt.wav"
    with pytest.raises(AudioError, match=r"prompt\.wav"):
        synthesizer.voice(path, PROMPT_TEXT)
    soundfile.write(path, voice, 24_000)
    assert len(synthesizer.voice(path, PROMPT_TEXT).codes) == 15


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


def test_the_least_recently_used_are_evicted_first() -> None:
    cache, created = RecentCache[list[int]](10, len), []

    def get(name: str, size: int) -> list[int]:
        def create() -> list[int]:
            created.append(name)
            return [0] * size

        return cache.get(name, create)

    for name in "aba":
        get(name, 4)
    get("c", 3)  # 11 in all: b, used longest ago, goes
    get("a", 4)
    get("c", 3)
    assert created == ["a", "b", "c"] and (cache.misses, cache.hits, len(cache)) == (3, 3, 2)
    get("b", 4)
    assert created == ["a", "b", "c", "b"] and len(cache) == 2
    get("huge", 99)
    get("huge", 99)
    assert created[4:] == ["huge"] and len(cache) == 1, "what is asked for is kept, whatever its size"


def test_errors_are_not_cached() -> None:
    cache = RecentCache[int](10, lambda _: 1)
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 // 0)
    assert len(cache) == 0 and cache.get("a", lambda: 5) == 5


def test_threads_with_the_same_request_wait_for_one_of_them() -> None:
    cache, started, go = RecentCache[int](10, lambda _: 1), threading.Barrier(4), threading.Event()

    def create() -> int:
        assert go.wait(10)
        return 5

    def ask() -> None:
        started.wait(10)
        answers.append(cache.get("slow", create))

    answers: list[int] = []
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    started.wait(10)
    assert cache.get("quick", lambda: 7) == 7, "others are not held up"
    go.set()
    for thread in threads:
        thread.join()
    assert answers == [5, 5, 5] and (cache.misses, cache.hits) == (2, 2)


def test_evicted_values_are_released_once_and_new_ones_stay() -> None:
    evicted: list[str] = []
    cache = RecentCache[str](2, lambda _: 1, evicted.append)

    def slow() -> str:
        for name in "abc":
            cache.get(name, lambda name=name: name)
        return "slow"

    assert cache.get("slow", slow) == "slow"  # the oldest until it is there, and the newest then
    assert evicted == ["a", "b"] and len(cache) == 2
    assert cache.get("c", lambda: "again") == "c" and evicted == ["a", "b"]
