from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tokenizer.config import tiny
from training.audio_tokenizer.batches import (
    FRAME_MULTIPLE,
    TokenizerBatch,
    TokenizerBatchConfig,
    TokenizerBatches,
)
from training.data.manifest import Clip

RATE, FRAME = 24_000, 1920
CROP = 2 * FRAME


def clip(path: Path, samples: np.ndarray, *, rate: int = RATE, duration: float | None = None, **more) -> Clip:
    """Write 16-bit FLAC of samples [s] or [s, channels]."""
    soundfile.write(path, samples, rate)
    seconds = len(samples) / rate if duration is None else duration
    known = Clip(
        audio=path, text=None, speaker="a", language="en", duration=seconds, source="s", license="CC0"
    )
    return replace(known, **more)


def ramp(samples: int) -> np.ndarray:
    """Sample i is i / 32768, exact in 16 bits."""
    return np.arange(samples) / 32768


def segments(
    clips: list[Clip], *, seed: int = 0, rank: int = 0, world: int = 1, **changes
) -> TokenizerBatches:
    """Steps of one crop of two frames each, at the level of the file, unless told otherwise."""
    config = TokenizerBatchConfig(**{"batch_seconds": 0.16, "crop_seconds": 0.16, "gain": 0.0, **changes})
    return TokenizerBatches(
        clips, config, tiny(), lambda text: list(text.encode()), seed=seed, steps=2000, rank=rank, world=world
    )


def spoken(folder: Path, lengths: list[float]) -> list[Clip]:
    """Clip i is a constant of i + 1 / 64 and says its number."""
    made = []
    for i, seconds in enumerate(lengths):
        audio, task = np.full(round(seconds * RATE), (i + 1) / 64), ("asr", "caption")[i % 2]
        made.append(clip(folder / f"{i}.flac", audio, text=str(i), task=task))
    return made


def test_a_step_depends_on_seed_and_step_alone(tmp_path: Path) -> None:
    clips = [clip(tmp_path / f"{i}.flac", ramp(8000 + 500 * i)) for i in range(3)]
    forth, back = segments(clips, seed=5), segments(clips, seed=5)
    steps = [forth[step].audio for step in range(8)]
    assert len(forth) == 2000
    assert all(torch.equal(back[step].audio, steps[step]) for step in reversed(range(8)))
    assert len({float(audio[0, 0]) for audio in steps}) == 8
    other = segments(clips, seed=6)
    assert not any(torch.equal(other[step].audio, steps[step]) for step in range(8))


def test_crops_lie_anywhere_in_the_clip(tmp_path: Path) -> None:
    crops = segments([clip(tmp_path / "a.flac", ramp(CROP + 100))])
    starts = {round(float(crops[step].audio[0, 0]) * 32768) for step in range(2000)}
    assert starts == set(range(101))
    torch.testing.assert_close(crops[7].audio.diff(), torch.full((1, CROP - 1), 1 / 32768), rtol=0, atol=0)


def test_a_short_clip_ends_in_silence_and_keeps_its_text(tmp_path: Path) -> None:
    batch = segments([clip(tmp_path / "a.flac", 0.25 + ramp(2000), text="ab", task="caption")])[0]
    torch.testing.assert_close(batch.audio[0, :2000], torch.from_numpy(0.25 + ramp(2000)).float())
    assert not batch.audio[0, 2000:].any()
    assert batch.frames.tolist() == [2] and batch.texts == [[97, 98]] and batch.tasks.tolist() == [2]
    assert batch.tokens == 3


def test_a_part_of_a_clip_has_no_text(tmp_path: Path) -> None:
    batch = segments([clip(tmp_path / "a.flac", ramp(CROP + 1), text="ab")])[0]
    assert batch.texts == [[]] and batch.tokens == 0


def test_seeking_and_reading_whole_files_give_the_same(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-20_000, 20_000, 9000) / 32768
    mono = clip(tmp_path / "mono.flac", samples)
    stereo = clip(tmp_path / "stereo.flac", np.stack([samples, samples], 1))
    sought, read = segments([mono]), segments([stereo])
    for step in range(20):
        torch.testing.assert_close(sought[step].audio, read[step].audio, rtol=0, atol=0)


def test_a_duration_beyond_the_end_of_the_file_gives_silence(tmp_path: Path) -> None:
    short = [clip(tmp_path / f"{n}.flac", np.full((5000, n), 0.5), duration=0.5) for n in (1, 2)]
    sought, read = segments(short[:1]), segments(short[1:])
    observed = [int(read[step].audio.count_nonzero()) for step in range(40)]
    assert observed.count(0) > 10 and max(observed) > 2000  # 5000 of 12000 samples exist
    assert all(torch.equal(sought[step].audio, read[step].audio) for step in range(40))


def test_another_rate_is_resampled(tmp_path: Path) -> None:
    time = np.arange(48_000) / 48_000
    crop = segments([clip(tmp_path / "a.flac", 0.5 * np.sin(2 * np.pi * 1000 * time), rate=48_000)])[0].audio
    spectrum = torch.fft.rfft(crop[0] * torch.hann_window(CROP)).abs()
    assert int(spectrum.argmax()) * RATE / CROP == 1000


def test_clips_are_drawn_by_their_duration(tmp_path: Path) -> None:
    levels = {0.25: 4800, -0.5: 14_400, 0.75: 28_800}
    clips = [clip(tmp_path / f"{level}.flac", np.full(n, level)) for level, n in levels.items()]
    crops = segments(clips)
    drawn = [float(crops[step].audio[0, 0]) for step in range(2000)]
    shares = [drawn.count(value) / 2000 for value in levels]
    assert shares == pytest.approx([0.1, 0.3, 0.6], abs=0.03)


def test_a_batch_is_counted_in_seconds(tmp_path: Path) -> None:
    clips = [clip(tmp_path / "a.flac", ramp(20_000))]
    for seconds, crop, multiple, items in [
        (1.6, 0.16, 1, 10),
        (1.6, 0.1, 1, 10),
        (1.6, 0.16, 4, 8),
        (1.6, 1.6, 1, 1),
    ]:
        batch = segments(clips, batch_seconds=seconds, crop_seconds=crop, multiple=multiple)[0]
        assert batch.audio.shape == (items, -(-round(crop * RATE) // FRAME) * FRAME)


def test_utterances_are_whole_of_like_length_and_fill_the_batch(tmp_path: Path) -> None:
    lengths = [0.3 + 0.05 * i for i in range(32)]
    steps = segments(spoken(tmp_path, lengths), batch_seconds=4.0, utterances=1.0)
    observed = set()
    for step in range(60):
        batch = steps[step]
        numbers = [int(bytes(text)) for text in batch.texts]
        assert len(set(numbers)) == len(numbers)  # enough of them: nothing twice
        width, room = batch.audio.shape[1] // FRAME, 50 // len(numbers)
        assert width == min(-(-int(batch.frames.max()) // FRAME_MULTIPLE) * FRAME_MULTIPLE, room)
        assert 1.5 * RATE < batch.audio.numel() <= 4.0 * RATE
        assert max(numbers) - min(numbers) < 24
        for i, number in enumerate(numbers):
            samples = round(lengths[number] * RATE)
            assert batch.frames[i] == -(-samples // FRAME)
            assert batch.tasks[i] == (2 if number % 2 else 0)
            torch.testing.assert_close(batch.audio[i, :samples], torch.full((samples,), (number + 1) / 64))
            assert not batch.audio[i, samples:].any()
        observed |= set(numbers)
    assert len(observed) == 32


def test_utterances_and_crops_take_turns_by_their_share(tmp_path: Path) -> None:
    steps = segments(spoken(tmp_path, [0.4] * 4), batch_seconds=0.8, utterances=0.3)
    whole = [any(steps[step].texts) for step in range(400)]
    assert sum(whole) / 400 == pytest.approx(0.3, abs=0.06)


def test_processes_share_the_batch_of_one(tmp_path: Path) -> None:
    lengths = [0.3 + 0.05 * i for i in range(12)]
    options = {"batch_seconds": 3.2, "utterances": 0.5, "gain": 6.0, "multiple": 2}
    clips = spoken(tmp_path, lengths)
    single, *shared = (
        segments(clips, **options),
        *(segments(clips, rank=r, world=2, **options) for r in (0, 1)),
    )
    for step in range(20):
        whole, first, second = (one[step] for one in (single, *shared))
        for rank, part in enumerate((first, second)):
            for name in ("audio", "frames", "depth", "tasks"):
                assert torch.equal(getattr(part, name), getattr(whole, name)[rank::2])
            assert part.texts == whole.texts[rank::2]


def test_gains_are_drawn_within_their_range_and_never_clip(tmp_path: Path) -> None:
    quiet, loud = (clip(tmp_path / f"{level}.flac", np.full(CROP, level)) for level in (0.25, 0.75))
    for one, lowest, highest in ((quiet, -6, 6), (loud, -6, 20 * np.log10(1 / 0.75))):
        steps = segments([one], gain=6.0)
        level = float(soundfile.read(one.audio)[0][0])
        gains = [20 * np.log10(float(steps[step].audio.max()) / level) for step in range(300)]
        assert lowest <= min(gains) < lowest + 0.2 and highest - 0.2 < max(gains) <= highest + 1e-5


def test_depths_are_all_those_of_the_model(tmp_path: Path) -> None:
    steps = segments([clip(tmp_path / "a.flac", ramp(CROP))])
    assert {int(steps[step].depth) for step in range(100)} == {1, 2, 3, 4, 5, 6}


def test_depths_that_are_named_are_drawn_as_often_as_they_are(tmp_path: Path) -> None:
    steps = segments([clip(tmp_path / "a.flac", ramp(CROP))], depths=(1, 6, 6, 6))
    drawn = [int(steps[step].depth) for step in range(400)]
    assert set(drawn) == {1, 6} and 260 < drawn.count(6) < 340


def test_a_broken_file_gives_way_and_is_counted(tmp_path: Path) -> None:
    clips = [clip(tmp_path / f"{i}.flac", np.full(CROP, 0.25 + i / 4)) for i in range(2)]
    clips[1].audio.write_bytes(b"no audio")
    for step in range(20):
        batch = segments(clips, batch_seconds=0.64)[step]
        assert batch.audio.eq(0.25).all() and len(batch.audio) == 4
        assert all("1.flac: not readable as audio" in failure for failure in batch.failures)
    assert sum(len(segments(clips)[step].failures) for step in range(200)) == pytest.approx(200, abs=50)


def test_a_broken_utterance_gives_way_to_one_of_like_length(tmp_path: Path) -> None:
    clips = spoken(tmp_path, [0.3, 0.32, 0.34, 3.0, 3.0, 3.0])
    clips[1].audio.unlink()
    steps = segments(clips, batch_seconds=3.04, utterances=1.0)
    failures = []
    for step in range(40):
        batch = steps[step]
        failures += batch.failures
        spoken_text = [[] if number == 0 else list(str(number - 1).encode()) for number in _numbers(batch)]
        assert all(text in ([], number) for text, number in zip(batch.texts, spoken_text, strict=True))
        assert list(b"1") not in batch.texts
    assert failures and all("1.flac: no such file" in failure for failure in failures)


def _numbers(batch: TokenizerBatch) -> list[int]:
    return (batch.audio[:, 0] * 64).round().int().tolist()


def test_where_nothing_can_be_read_the_files_are_named(tmp_path: Path) -> None:
    one = clip(tmp_path / "a.flac", ramp(CROP))
    one.audio.write_bytes(b"")
    with pytest.raises(ValueError, match=r"20 files in a row cannot be read: .*a\.flac"):
        segments([one])[0]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"batch_seconds": 0.16, "multiple": 2}, "cannot hold 2 crops of 0.16 s: give 0.32 or more"),
        ({"utterances": 0.5}, "no clip with a text lasts at most 0.16 s: raise batch_seconds"),
        ({"utterances": 1.5}, "utterances=1.5: give a part"),
        ({"gain": -1.0}, "gain=-1.0"),
        ({"depths": (1, 7)}, r"depths=\(1, 7\): this tokenizer has codebooks 1 to 6"),
        ({"depths": (0, 6)}, r"depths=\(0, 6\): this tokenizer has codebooks 1 to 6"),
    ],
)
def test_batches_that_cannot_be_are_refused(tmp_path: Path, changes: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        segments(spoken(tmp_path, [0.5]), **changes)


def test_clips_in_archives_are_refused(tmp_path: Path) -> None:
    packed = replace(clip(tmp_path / "a.flac", ramp(CROP)), audio=tmp_path / "a.tar.gz", member="a.flac")
    with pytest.raises(ValueError, match=r"a\.tar\.gz: extract this archive and import again"):
        segments([packed])


def test_an_empty_manifest_is_refused() -> None:
    with pytest.raises(ValueError, match="no clips"):
        segments([])
