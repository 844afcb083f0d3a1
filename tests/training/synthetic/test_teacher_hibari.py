import librosa
import numpy as np
import pytest
import soxr

from training.synthetic.speakers import Speaker, hibari_speakers
from training.synthetic.teacher_hibari import (
    HibariTeacher,
    change_pitch,
    equalizer,
    reshape_spectra,
    warp_bins,
)

PLAIN = Speaker(name="plain", alpha=1.0, speed=1.0)
LOW = Speaker(name="low", alpha=0.8, speed=1.0, pitch=100.0, melody=2.0, tilt=6.0, band=(1200.0, 3.0))


def test_a_speaker_without_a_pitch_keeps_that_of_the_teacher() -> None:
    contour = np.array([0.0, 200.0, 220.0], np.float32)
    assert (change_pitch(contour, PLAIN) == contour).all()
    assert (change_pitch(np.zeros(3, np.float32), LOW) == 0).all()


def test_pitch_is_moved_to_the_speakers_mean_and_its_melody_widened() -> None:
    moved = change_pitch(np.array([0.0, 180.0, 20.0, 245.0], np.float32), LOW)  # their geometric mean is 210
    assert moved[[0, 2]].tolist() == [0.0, 20.0]
    assert moved[[1, 3]] == pytest.approx([125 * (180 / 210) ** 2, 125 * (245 / 210) ** 2], rel=1e-4)


def test_the_equalizer_is_a_tilt_and_a_louder_octave() -> None:
    assert not equalizer(601, PLAIN).any()
    decibels = equalizer(601, LOW) * 20 / np.log(10)
    assert decibels[50] == pytest.approx(3 * np.exp(-2 * np.log2(1001 / 1200) ** 2), abs=1e-4)  # 1 kHz
    assert decibels[0] == pytest.approx(3 * -2, abs=1e-3)
    assert decibels[600] == pytest.approx(3 * 2.5, abs=0.01)


def test_a_warp_moves_the_spectrum_at_its_points() -> None:
    assert warp_bins(601, PLAIN).tolist() == list(range(601))
    higher = Speaker(name="warped", alpha=1.0, speed=1.0, warp=(0.0, np.log(1.2), 0.0, 0.0))
    bins = warp_bins(601, higher)
    assert bins[60] == pytest.approx(50)  # the teacher's 1,000 Hz move to 1,200
    assert bins[[0, 110, 240, 600]] == pytest.approx([0, 110, 240, 600])  # 2,200 and 4,800 Hz stay


def test_no_speaker_folds_a_spectrum() -> None:
    assert all((np.diff(warp_bins(601, speaker)) > 0).all() for speaker in hibari_speakers(200, 0))


def test_contrast_scales_resonances() -> None:
    spectra = np.zeros((601, 2), np.float32)
    spectra[300] = 1.0
    assert (reshape_spectra(spectra, np.arange(601.0), 1.0) == spectra).all()
    flat = reshape_spectra(spectra, np.arange(601.0), 0.5)
    assert flat[300] == pytest.approx(1 / 81 + 0.5 * 80 / 81, abs=1e-6)
    assert flat[[0, 200]] == pytest.approx(0)
    assert reshape_spectra(spectra, np.array([299.5, 300.25]), 1.0)[:, 0] == pytest.approx([0.5, 0.75])


@pytest.mark.parametrize("speaker", hibari_speakers(2, 0), ids=["woman", "man"])
def test_a_speaker_has_its_pitch(speaker: Speaker) -> None:
    """pYIN looks below an octave above it: it takes a low voice's second harmonic for its first."""
    audio = HibariTeacher().speak("The old garden house sleeps under the trees today.", speaker, 0)
    played = soxr.resample(audio, 24_000 * speaker.alpha, 24_000)
    pitch, voiced, _ = librosa.pyin(played, fmin=60, fmax=1.8 * speaker.pitch, sr=24_000)
    assert np.exp(np.log(pitch[voiced]).mean()) == pytest.approx(speaker.pitch, rel=0.1)
