"""A clip is cut in a pause, and its defects are reported."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from inference.voices.prompt_clip import advise, cut_in_pause, load_clip
from tokenizer import AudioError

RATE = 24_000


def speech(seconds: float, level: float = 0.1) -> np.ndarray:
    """Return noise that is switched four times a second between levels 40 dB apart, like syllables."""
    time = np.arange(round(seconds * RATE)) / RATE
    loudness = np.where(np.sin(2 * np.pi * 4 * time) > -0.5, 1.0, 0.01)
    noise = np.random.default_rng(0).uniform(-1, 1, len(time))
    return (level * loudness * noise).astype(np.float32)


def test_a_short_clip_stays_whole() -> None:
    audio = speech(4.0)
    assert cut_in_pause(audio, RATE, 4.0) is audio


def test_a_long_clip_ends_in_the_middle_of_its_pause() -> None:
    audio = speech(9.0)
    audio[round(4.0 * RATE) : round(4.3 * RATE)] = 0
    audio[round(1.0 * RATE) : round(1.5 * RATE)] = 0  # too early
    audio[round(7.0 * RATE) : round(7.5 * RATE)] = 0  # too late
    assert 4.1 <= len(cut_in_pause(audio, RATE, 6.0)) / RATE <= 4.2


@pytest.mark.parametrize("longest", [0.5, 1.5, 3.0, 3.1, 8.0])
def test_a_cut_is_never_longer_than_allowed(longest: float) -> None:
    assert longest / 2 <= len(cut_in_pause(speech(9.0), RATE, longest)) / RATE <= longest


def test_a_good_clip_needs_no_advice() -> None:
    assert advise(speech(4.0), RATE) == []


@pytest.mark.parametrize(
    ("audio", "expected"),
    [
        (speech(1.0), "short 1.0"),
        (speech(4.0, level=0.001), "quiet -"),
        (np.clip(speech(4.0, level=1.0) * 5, -1, 1), "clipped"),
        (np.random.default_rng(0).uniform(-0.1, 0.1, 4 * RATE).astype(np.float32), "noisy 0."),
    ],
)
def test_what_spoils_a_clip_is_named(audio: np.ndarray, expected: str) -> None:
    (advice,) = advise(audio, RATE)
    assert f"{advice.kind} {advice.value:.1f}".startswith(expected)


def test_load_takes_the_speech_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.concatenate([np.zeros(RATE), speech(4.0), np.zeros(RATE)]), RATE)
    clip = load_clip(path, RATE)
    assert (clip.sample_rate, clip.cut, clip.advice) == (RATE, False, ())
    assert 4.0 <= clip.seconds <= 4.4
    assert load_clip(path, RATE, max_seconds=3.5).cut


def test_a_silent_file_is_no_prompt(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.zeros(RATE), RATE)
    with pytest.raises(AudioError, match="is silent"):
        load_clip(path, RATE)
