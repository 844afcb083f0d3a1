"""What is heard in a listening test: anchors, loudness, and folders that make no fair test."""

from pathlib import Path

import numpy as np
import pyloudnorm
import pytest
import soundfile

from eval.mushra.trials import LOW, MID, REFERENCE, equally_loud, low_pass, read_trials

RATE = 24_000


def tone(frequency: float, seconds: float = 1.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def decibel(audio: np.ndarray, reference: np.ndarray) -> float:
    middle = slice(len(audio) // 4, 3 * len(audio) // 4)
    return 20 * float(np.log10(np.linalg.norm(audio[middle]) / np.linalg.norm(reference[middle]) + 1e-9))


@pytest.mark.parametrize("edge", [3_500, 7_000])
def test_an_anchor_keeps_what_lies_below_and_loses_what_lies_above(edge: int) -> None:
    below, above = tone(edge - 20), tone(edge + 500)
    kept = low_pass(below, RATE, edge)
    assert abs(decibel(kept, below)) < 0.1  # BS.1534-3, 3.5 kHz: 0.1 dB of ripple,
    assert decibel(low_pass(above, RATE, edge), above) < -50  # 25 dB at 4 kHz and 50 dB at 4.5 kHz
    np.testing.assert_allclose(kept[6000:-6000], below[6000:-6000], atol=1e-3)  # nothing is delayed


def test_all_are_as_loud_as_the_first_and_none_clips() -> None:
    first, soft, peaky = tone(1000), 0.05 * tone(700), 0.001 * tone(1000)
    peaky[::4000] = 0.03
    matched = equally_loud([first, soft], RATE, "a")
    meter = pyloudnorm.Meter(RATE)
    loudness = [meter.integrated_loudness(audio) for audio in matched]
    assert loudness[0] == pytest.approx(loudness[1], abs=0.01)
    np.testing.assert_array_equal(matched[0], first)
    matched = equally_loud([first, soft, peaky], RATE, "a")
    assert max(np.abs(audio).max() for audio in matched) == pytest.approx(1, abs=1e-6)
    loudness = [meter.integrated_loudness(audio) for audio in matched]
    assert max(loudness) - min(loudness) < 0.01


def write(path: Path, audio: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, audio, rate)


def test_a_trial_has_all_conditions_of_one_length(tmp_path: Path) -> None:
    speech = tone(440) + tone(5000) + tone(9000)
    write(tmp_path / "ref/a.wav", speech)
    write(tmp_path / "sys/a.wav", 0.1 * speech[:-100])
    (trial,) = read_trials(tmp_path / "ref", {"sys": tmp_path / "sys"})
    assert (trial.name, trial.sample_rate) == ("a.wav", RATE)
    assert list(trial.conditions) == [REFERENCE, LOW, MID, "sys"]
    assert {len(audio) for audio in trial.conditions.values()} == {RATE}

    def share(condition: str, frequency: int) -> float:
        spectrum = np.abs(np.fft.rfft(trial.conditions[condition]))
        return float(spectrum[frequency - 5 : frequency + 6].sum() / spectrum[435:446].sum())

    for frequency, there in {5000: {REFERENCE, MID, "sys"}, 9000: {REFERENCE, "sys"}}.items():
        assert {name for name in trial.conditions if share(name, frequency) > 0.5} == there


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("long", r"a.wav: 12.5 s; cut it to 12 s"),
        ("missing", r"lacks a.wav; sys needs a file for each reference"),
        ("other length", r"sys/a.wav: 2.00 s and its reference 1.00 s"),
        ("narrow", r"8000 Hz cannot hold the anchor of 7 kHz"),
        ("silent", r"too quiet to have a loudness"),
        ("short", r"0.20 s is too short"),
        ("none", r"give a folder of wav files"),
        ("no system", r"give a folder of wav files"),
    ],
)
def test_unfair_tests_are_refused(tmp_path: Path, change: str, message: str) -> None:
    length = {"long": 12.5, "short": 0.2}.get(change, 1)
    reference, system = tone(440, length), tone(440, 2 if change == "other length" else length)
    if change != "none":
        write(tmp_path / "ref/a.wav", reference[::3] if change == "narrow" else reference, RATE)
    if change == "narrow":
        write(tmp_path / "ref/a.wav", tone(440), 8_000)
    if change != "missing":
        write(tmp_path / "sys/a.wav", system * 0 if change == "silent" else system)
    systems = {} if change == "no system" else {"sys": tmp_path / "sys"}
    with pytest.raises(ValueError, match=message):
        read_trials(tmp_path / "ref", systems)


def test_a_system_may_not_be_called_as_a_condition_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rename its folder"):
        read_trials(tmp_path, {LOW: tmp_path})
