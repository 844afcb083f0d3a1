from pathlib import Path

import numpy as np
import pytest
import soundfile

from training.data.manifest import Clip, read_manifest, write_manifest
from training.synthetic.build import build
from training.synthetic.jobs import SAMPLE_RATE, normalize_loudness
from training.synthetic.script import as_written, deal
from training.synthetic.speakers import hibari_speakers
from training.synthetic.texts import utterances


def tone(seconds: float, rate: int, amplitude: float = 0.1, pitch: float = 200.0) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * pitch * time)).astype(np.float32)


def decibels(audio: np.ndarray) -> float:
    return 20 * np.log10(np.sqrt(np.mean(np.square(audio, dtype=np.float64)) + 1e-20))


def pitch(audio: np.ndarray) -> float:
    """Median pitch in Hz over the voiced 50 ms windows, by autocorrelation."""
    found = []
    for window in audio[: len(audio) // 1200 * 1200].reshape(-1, 1200):
        if decibels(window) < -30:
            continue
        correlation = np.correlate(window, window, "full")[1199:]
        lags = correlation[SAMPLE_RATE // 400 : SAMPLE_RATE // 80] / correlation[0]
        if lags.max() > 0.6:
            found.append(SAMPLE_RATE / (lags.argmax() + SAMPLE_RATE // 400))
    return float(np.median(found))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("the cat sat on the mat\nA long road leads over the hill.\ngood morning\n")
    return path


@pytest.fixture
def human(tmp_path: Path) -> Path:
    """A folder with one stereo 16 kHz recording: a tone between two seconds of silence."""
    folder = tmp_path / "human"
    (folder / "wav").mkdir(parents=True)
    audio = np.concatenate([np.zeros(16000), tone(2.0, 16000), np.zeros(16000)])
    soundfile.write(folder / "wav" / "a.wav", np.stack([audio, audio], 1), 16000)
    clip = Clip(
        audio=folder / "wav" / "a.wav",
        text=None,
        speaker="p1",
        language="en",
        duration=4.0,
        source="here",
        license="CC0",
    )
    write_manifest(folder / "manifest.jsonl", [clip])
    return folder


def test_normalize_loudness_reaches_the_level_or_stops_at_the_peak() -> None:
    assert decibels(normalize_loudness(tone(1.0, SAMPLE_RATE))) == pytest.approx(-23.0, abs=0.01)
    spiky = tone(1.0, SAMPLE_RATE, amplitude=1e-3)
    spiky[100] = 0.5
    assert np.abs(normalize_loudness(spiky)).max() == pytest.approx(10 ** (-1 / 20))
    np.testing.assert_array_equal(normalize_loudness(np.zeros(5, np.float32)), np.zeros(5))


def test_real_speech_is_resampled_trimmed_and_levelled(human: Path, tmp_path: Path) -> None:
    (clip,) = build(tmp_path / "out", human=[human])
    audio, rate = soundfile.read(clip.audio, dtype="float32")
    assert rate == SAMPLE_RATE and audio.ndim == 1
    assert clip.duration == pytest.approx(2.3, abs=0.03)
    assert len(audio) == pytest.approx(clip.duration * SAMPLE_RATE, abs=SAMPLE_RATE / 1000)
    assert decibels(audio) == pytest.approx(-23.0, abs=0.1)
    assert pitch(audio) == pytest.approx(200.0, rel=0.01)
    assert (clip.speaker, clip.text, clip.source, clip.license) == ("p1", None, "here", "CC0")
    assert read_manifest(tmp_path / "out" / "manifest.jsonl") == [clip]


def test_real_speech_at_other_speeds_is_that_of_other_speakers(human: Path, tmp_path: Path) -> None:
    """Pitch and tempo move together."""
    clips = build(tmp_path / "out", human=[human], speeds=(0.8, 1.0, 1.25))
    assert [clip.speaker for clip in clips] == ["p1@0.8", "p1", "p1@1.25"]
    assert [clip.audio.name for clip in clips] == ["a@0.8.flac", "a.flac", "a@1.25.flac"]
    for clip, hertz, seconds in zip(clips, (160.0, 200.0, 250.0), (2.5, 2.0, 1.6), strict=True):
        assert pitch(soundfile.read(clip.audio)[0]) == pytest.approx(hertz, rel=0.01)
        assert clip.duration == pytest.approx(seconds + 0.3, abs=0.03)


@pytest.mark.parametrize("speeds", [(), (1.0, 0.3)])
def test_speeds_that_are_none(human: Path, tmp_path: Path, speeds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"speeds \[.*\]: give some, from 0.5 to 2"):
        build(tmp_path / "out", human=[human], speeds=speeds)
    assert not (tmp_path / "out").exists()


def test_synthetic_speech_is_repeatable_and_resumable(texts: Path, tmp_path: Path) -> None:
    speakers = hibari_speakers(9, 0)

    def synthetic(folder: str) -> list[Clip]:
        lines = deal(utterances(texts, 0), speakers, as_written, 0)
        return build(tmp_path / folder, synthetic_hours=0.01, lines=lines)

    clips = synthetic("a")
    assert sum(clip.duration for clip in clips[:-1]) < 36 <= sum(clip.duration for clip in clips)
    assert all(1 <= clip.duration <= 12 and clip.text and clip.license == "Apache-2.0" for clip in clips)

    again = synthetic("b")
    assert [clip.audio.name for clip in again] == [clip.audio.name for clip in clips]
    assert all(a.audio.read_bytes() == b.audio.read_bytes() for a, b in zip(clips, again, strict=True))

    clips[0].audio.unlink()
    kept = {clip.audio: clip.audio.stat().st_mtime_ns for clip in clips[1:]}
    assert synthetic("a") == clips
    assert kept == {clip.audio: clip.audio.stat().st_mtime_ns for clip in clips[1:]}

    assert {clip.speaker for clip in clips} <= {speaker.name for speaker in speakers}
