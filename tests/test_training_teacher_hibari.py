import librosa
import numpy as np
import pytest
import soxr

from training.speakers import Speaker, hibari_speakers
from training.teacher_hibari import HibariTeacher, coloured, pitched

PLAIN = Speaker(name="plain", alpha=1.0, speed=1.0)
LOW = Speaker(name="low", alpha=0.8, speed=1.0, pitch=100.0, melody=2.0, tilt=6.0, band=(1200.0, 3.0))


def test_a_speaker_without_a_pitch_keeps_the_teachers() -> None:
    given = np.array([0.0, 200.0, 220.0], np.float32)
    assert (pitched(given, PLAIN) == given).all()
    assert (pitched(np.zeros(3, np.float32), LOW) == 0).all()


def test_pitch_is_moved_to_the_speakers_mean_and_its_melody_widened() -> None:
    moved = pitched(np.array([0.0, 180.0, 20.0, 245.0], np.float32), LOW)  # their geometric mean is 210
    assert moved[[0, 2]].tolist() == [0.0, 20.0]
    assert moved[[1, 3]] == pytest.approx([125 * (180 / 210) ** 2, 125 * (245 / 210) ** 2], rel=1e-4)


def test_colour_is_a_tilt_and_a_louder_octave() -> None:
    assert not coloured(601, PLAIN).any()
    decibels = coloured(601, LOW) * 20 / np.log(10)
    assert decibels[50] == pytest.approx(3 * np.exp(-2 * np.log2(1001 / 1200) ** 2), abs=1e-4)  # 1 kHz
    assert decibels[0] == pytest.approx(3 * -2, abs=1e-3)
    assert decibels[600] == pytest.approx(3 * 2.5, abs=0.01)


@pytest.mark.parametrize("speaker", hibari_speakers(2, 0), ids=["woman", "man"])
def test_a_speaker_is_heard_at_its_pitch(speaker: Speaker) -> None:
    """pYIN looks below an octave above it: it takes a low voice's second harmonic for its first."""
    audio = HibariTeacher().speak("The old garden house sleeps under the trees today.", speaker, 0)
    played = soxr.resample(audio, 24_000 * speaker.alpha, 24_000)
    pitch, voiced, _ = librosa.pyin(played, fmin=60, fmax=1.8 * speaker.pitch, sr=24_000)
    assert np.exp(np.log(pitch[voiced]).mean()) == pytest.approx(speaker.pitch, rel=0.1)
