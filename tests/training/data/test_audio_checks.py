from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from training.data.archives import ClipReader
from training.data.audio_checks import Finding, bandwidth, clipped_share, examine
from training.data.manifest import Clip

RATE = 16_000
NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, RATE)


@pytest.fixture
def found(tmp_path: Path) -> Callable[..., Finding]:
    """What is found of a second of sound with a text that one can say in it."""

    def finding(samples: np.ndarray = NOISE, **changes) -> Finding:
        soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
        clip = Clip(
            audio=tmp_path / "a.wav",
            text="Good morning.",
            speaker="",
            language="en",
            duration=len(samples) / RATE or 1.0,
            source="s",
            license="CC0",
        )
        ((number, found),) = examine([replace(clip, **changes)], ClipReader())
        assert number == 0
        return found

    return finding


def test_a_good_clip_has_no_fault(found: Callable[..., Finding]) -> None:
    finding = found()
    assert finding.faults == {}
    assert (finding.seconds, finding.sample_rate) == (1.0, RATE)
    assert finding.bandwidth == pytest.approx(8000, abs=20)


@pytest.mark.parametrize(
    ("audio", "changes", "fault", "detail"),
    [
        (NOISE, {"duration": 1.11}, "duration", "1.00 s, not 1.11 s"),
        (NOISE * 1e-3, {}, "silence", "peak 3.0e-04"),
        (NOISE, {"text": None}, "no text", ""),
        (NOISE, {"text": "x" * 31}, "speaking rate", "31.0 characters/s"),
        (NOISE, {"text": "x"}, "speaking rate", "1.0 characters/s"),
        (NOISE, {"text": "好" * 13, "language": "zh"}, "speaking rate", "13.0 characters/s"),
        (NOISE, {"text": "今天 good", "language": "de"}, None, ""),
        (NOISE, {"text": "今天天气 good", "language": "ja"}, None, ""),
        (NOISE, {"text": "今天天气", "language": "en"}, "language", "en: 今天天气"),
        (NOISE, {"language": "zh"}, "language", "zh: Good morning."),
        (NOISE, {"text": "x" * 31, "task": "caption"}, None, ""),
        (NOISE, {"duration": 1.09}, None, ""),
        (np.clip(NOISE * 3.4, -1, 1), {}, "clipping", "2.17 %"),
        (np.full(RATE, np.nan), {}, "broken audio", "holds NaN"),
        (np.zeros(0), {}, "broken audio", "holds no samples"),
        (NOISE, {"audio": Path("/nowhere/a.wav")}, "missing audio", "no such file"),
    ],
)
def test_faults(
    found: Callable[..., Finding], audio: np.ndarray, changes: dict, fault: str | None, detail: str
) -> None:
    faults = found(audio, **changes).faults
    assert list(faults) == ([fault] if fault else [])
    assert detail in faults.get(fault or "", "")


def test_equal_sounds_have_equal_digests_in_other_formats(tmp_path: Path) -> None:
    pcm = (NOISE * 32767).astype(np.int16)
    paths = [tmp_path / "a.wav", tmp_path / "b.flac", tmp_path / "c.wav"]
    for path, samples in zip(paths, (pcm, pcm, pcm[::-1]), strict=True):
        soundfile.write(path, samples, RATE)
    clips = [
        Clip(audio=path, text="a b", speaker="", language="en", duration=1.0, source="s", license="CC0")
        for path in paths
    ]
    one, other, third = (finding.digest for _, finding in examine(clips, ClipReader()))
    assert one == other != third and len(one) == 8


def test_few_samples_at_full_scale_are_no_clipping() -> None:
    audio = np.zeros(100_000, np.float32)
    audio[::1001] = 1
    assert clipped_share(audio) == 0
    audio[50_000:50_099] = -1
    assert clipped_share(audio) > 1e-3  # two in a thousand by now
    audio = np.zeros(1_000_000, np.float32)
    audio[5000:5100] = 1
    assert clipped_share(audio) == pytest.approx(1e-4)  # few, but a hundred in a row
    audio[5000] = 0
    assert clipped_share(audio) == 0


def test_bandwidth_is_that_of_the_sound_not_of_the_file() -> None:
    time = np.arange(48_000) / 48_000
    tones = np.sin(2 * np.pi * np.outer([500, 3000, 7000], time)).sum(0)
    assert bandwidth(0.1 * tones, 48_000) == pytest.approx(7000, abs=300)
    assert bandwidth(np.zeros(100), 48_000) == 0.0
