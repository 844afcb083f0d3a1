import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tokenizer.layers.vocoder import REFERENCE_PITCH
from training.data.manifest import Clip, write_manifest
from training.data.pitch_tracking import track_pitch
from training.synthetic.build import build
from training.synthetic.voice_changes import (
    FORMANT_FACTORS,
    HOP,
    MIN_LOG_FACTOR,
    PITCH_FACTORS,
    WINDOW,
    VoiceChange,
    change_voice,
    draw_changes,
    envelope,
    warp_envelope,
)

RATE = 24_000
RESONANCES = (700.0, 1300.0, 2600.0)
"""Hz."""


def vowel(pitch: float = 120.0, seconds: float = 1.0, rate: int = RATE) -> torch.Tensor:
    """Harmonics of `pitch` that are loud near the resonances: 100 Hz wide each, and falling with
    frequency."""
    time = torch.arange(round(seconds * rate)) / rate
    audio = torch.zeros_like(time)
    for number in range(1, int(6000 / pitch)):
        hertz = number * pitch
        level = sum(1 / (1 + ((hertz - f) / 100) ** 2) * 500 / f for f in RESONANCES) + 1e-3
        audio += level * torch.sin(2 * math.pi * hertz * time + number**2)
    return 0.1 * audio / audio.abs().max()


def pitch_of(audio: torch.Tensor) -> float:
    """Median over the voiced steps, Hz."""
    tracked = track_pitch(audio[None], RATE, 240)
    return REFERENCE_PITCH * 2 ** float(tracked.octaves[tracked.confidence > 0.9].median())


def resonances_of(audio: torch.Tensor, pitch: float) -> list[float]:
    """The peaks of the mean envelope near which `vowel` has some, Hz."""
    windows = audio.unfold(0, WINDOW, HOP)[4:-4]
    levels = envelope(windows, torch.full((len(windows),), pitch), RATE).mean(0)
    inner = levels[1:-1]
    peaks = 1 + ((inner > levels[:-2]) & (inner >= levels[2:])).nonzero()[:, 0]
    loudest = peaks[levels[peaks].argsort(descending=True)[:3]].sort().values
    return (loudest * RATE / WINDOW).tolist()


def test_the_envelope_has_the_resonances_of_a_vowel() -> None:
    for pitch in (100.0, 220.0):
        assert resonances_of(vowel(pitch), pitch) == pytest.approx(RESONANCES, rel=0.08)


@pytest.mark.parametrize("factor", [0.85, 1.18])
def test_formants_are_shifted_and_the_pitch_stays(factor: float) -> None:
    audio = vowel()
    changed = change_voice(audio, RATE, VoiceChange(formants=factor))
    assert changed.shape == audio.shape
    assert pitch_of(changed) == pytest.approx(120.0, rel=0.005)
    assert resonances_of(changed, 120.0) == pytest.approx([factor * f for f in RESONANCES], rel=0.06)


@pytest.mark.parametrize("factor", [0.85, 1.2])
def test_the_pitch_is_shifted_and_formants_stay(factor: float) -> None:
    audio = vowel()
    changed = change_voice(audio, RATE, VoiceChange(pitch=factor))
    assert len(changed) == pytest.approx(len(audio) / factor, abs=2)
    assert pitch_of(changed) == pytest.approx(factor * 120.0, rel=0.005)
    assert resonances_of(changed, factor * 120.0) == pytest.approx(RESONANCES, rel=0.08)


def test_no_change_is_the_recording_and_a_tiny_one_nearly_so() -> None:
    audio = vowel(seconds=0.3)
    assert change_voice(audio, RATE, VoiceChange()) is audio
    nearly = warp_envelope(audio, RATE, 1 + 1e-9)
    torch.testing.assert_close(nearly, audio, atol=1e-5, rtol=0)
    assert change_voice(audio[:0], RATE, VoiceChange(formants=0.9)).shape == (0,)
    short = change_voice(audio[:100], RATE, VoiceChange(formants=0.9))
    assert short.shape == (100,) and short.isfinite().all()
    assert change_voice(torch.zeros(5000), RATE, VoiceChange(0.9, 1.1)).abs().max() == 0


def test_changes_are_drawn_from_the_seed_and_the_name() -> None:
    changes = draw_changes("p1", 7, 3)
    assert changes[:4] == draw_changes("p1", 4, 3)
    assert changes != draw_changes("p2", 7, 3) and changes != draw_changes("p1", 7, 4)
    assert [(c.formants != 1, c.pitch != 1) for c in changes[:4]] == [
        (True, False),
        (False, True),
        (True, True),
        (True, False),
    ]
    assert len({change.mark for change in changes}) == 7
    for change in changes:
        assert FORMANT_FACTORS[0] <= change.formants <= FORMANT_FACTORS[1]
        assert PITCH_FACTORS[0] <= change.pitch <= PITCH_FACTORS[1]
        moved = max(abs(math.log(change.formants)), abs(math.log(change.pitch)))
        assert moved > MIN_LOG_FACTOR - 0.01


def test_marks_and_impossible_factors() -> None:
    assert VoiceChange().mark == ""
    assert VoiceChange(0.9).mark == "@f0.90" and VoiceChange(1.0, 1.12).mark == "@p1.12"
    assert VoiceChange(0.9, 1.12).mark == "@f0.90p1.12"
    with pytest.raises(ValueError, match=r"pitch=3.0: give factors from 0.5 to 2"):
        VoiceChange(1.0, 3.0)


def test_a_corpus_has_changed_voices_as_further_speakers(tmp_path: Path) -> None:
    folder = tmp_path / "human"
    folder.mkdir()
    soundfile.write(folder / "a.wav", vowel(seconds=2.0, rate=16_000).numpy(), 16_000)
    clip = Clip(
        audio=folder / "a.wav",
        text="a",
        speaker="p1",
        language="en",
        duration=2.0,
        source="here",
        license="CC0",
    )
    write_manifest(folder / "manifest.jsonl", [clip])
    recorded, *others = build(tmp_path / "out", human=[folder], changes=3, seed=5)
    assert recorded.speaker == "p1"
    drawn = draw_changes("p1", 3, 5)
    assert [other.speaker for other in others] == [f"p1{change.mark}" for change in drawn]
    assert [other.audio.name for other in others] == [f"a{change.mark}.flac" for change in drawn]
    for other, change in zip(others, drawn, strict=True):
        audio, rate = soundfile.read(other.audio, dtype="float32")
        assert rate == RATE and pitch_of(torch.from_numpy(audio)) == pytest.approx(
            120 * change.pitch, rel=0.01
        )
    with pytest.raises(ValueError, match="changes=-1 is negative"):
        build(tmp_path / "other", human=[folder], changes=-1)
    assert np.isfinite(audio).all()
