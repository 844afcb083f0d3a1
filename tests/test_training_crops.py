from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from training.crops import RandomCrops
from training.manifest import Clip

RATE = 24_000


def clip(path: Path, samples: np.ndarray, *, rate: int = RATE, duration: float | None = None) -> Clip:
    """Write 16-bit FLAC of samples [s] or [s, channels]."""
    soundfile.write(path, samples, rate)
    return Clip(
        audio=path,
        text=None,
        speaker="a",
        language="en",
        duration=len(samples) / rate if duration is None else duration,
        source="synthetic",
        license="CC0-1.0",
    )


def ramp(samples: int) -> np.ndarray:
    """Sample i is i / 32768, exact in 16 bits."""
    return np.arange(samples) / 32768


def test_an_item_depends_on_seed_and_index_alone(tmp_path: Path) -> None:
    clips = [clip(tmp_path / f"{i}.flac", ramp(3000 + 500 * i)) for i in range(3)]
    forth = RandomCrops(clips, 100, RATE, seed=5, items=8)
    back = RandomCrops(clips, 100, RATE, seed=5, items=1000)
    items = [forth[i] for i in range(8)]
    assert len(forth) == 8
    assert all(torch.equal(back[i], items[i]) for i in reversed(range(8)))
    assert len({float(item[0]) for item in items}) == 8
    other = RandomCrops(clips, 100, RATE, seed=6, items=8)
    assert not any(torch.equal(other[i], items[i]) for i in range(8))


def test_crops_lie_anywhere_in_the_clip(tmp_path: Path) -> None:
    crops = RandomCrops([clip(tmp_path / "a.flac", ramp(1000))], 900, RATE, seed=0, items=2000)
    starts = [round(float(crops[i][0]) * 32768) for i in range(2000)]
    assert set(starts) == set(range(101))
    torch.testing.assert_close(crops[7].diff(), torch.full((899,), 1 / 32768), rtol=0, atol=0)


def test_a_short_clip_ends_in_silence(tmp_path: Path) -> None:
    crops = RandomCrops([clip(tmp_path / "a.flac", 0.25 + ramp(700))], 1000, RATE, seed=0, items=1)
    torch.testing.assert_close(crops[0][:700], torch.from_numpy(0.25 + ramp(700)).float())
    assert not crops[0][700:].any()


def test_seeking_and_reading_whole_files_give_the_same(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-20_000, 20_000, 5000) / 32768
    mono = clip(tmp_path / "mono.flac", samples)
    stereo = clip(tmp_path / "stereo.flac", np.stack([samples, samples], 1))
    sought, read = (RandomCrops([one], 1200, RATE, seed=0, items=20) for one in (mono, stereo))
    for i in range(20):
        torch.testing.assert_close(sought[i], read[i], rtol=0, atol=0)


def test_a_duration_beyond_the_end_of_the_file_gives_silence(tmp_path: Path) -> None:
    short = [clip(tmp_path / f"{n}.flac", np.full((1000, n), 0.5), duration=0.1) for n in (1, 2)]
    sought, read = (RandomCrops([one], 500, RATE, seed=0, items=40) for one in short)
    heard = [int(read[i].count_nonzero()) for i in range(40)]
    assert heard.count(0) > 10 and max(heard) == 500  # 1000 of 2400 samples exist
    assert all(torch.equal(sought[i], read[i]) for i in range(40))


def test_another_rate_is_resampled(tmp_path: Path) -> None:
    time = np.arange(48_000) / 48_000
    crops = RandomCrops(
        [clip(tmp_path / "a.flac", 0.5 * np.sin(2 * np.pi * 1000 * time), rate=48_000)],
        4800,
        RATE,
        seed=0,
        items=1,
    )
    spectrum = torch.fft.rfft(crops[0] * torch.hann_window(4800)).abs()
    assert int(spectrum.argmax()) * RATE / 4800 == 1000


def test_clips_are_drawn_by_their_duration(tmp_path: Path) -> None:
    clips = [
        clip(tmp_path / "a.flac", np.full(2400, 0.25)),
        clip(tmp_path / "b.flac", np.full(7200, -0.5)),
        clip(tmp_path / "c.flac", np.full(14_400, 0.75)),
    ]
    crops = RandomCrops(clips, 10, RATE, seed=0, items=2000)
    drawn = [float(crops[i][0]) for i in range(2000)]
    shares = [drawn.count(value) / 2000 for value in (0.25, -0.5, 0.75)]
    assert shares == pytest.approx([0.1, 0.3, 0.6], abs=0.03)


def test_an_empty_manifest_is_refused() -> None:
    with pytest.raises(ValueError, match="no clips"):
        RandomCrops([], 100, RATE, seed=0, items=1)
