"""Audio files in and out: level, pitch and length survive every format; errors say what is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.helpers.paths import ROOT
from tokenizer.io.audio import (
    AI_GENERATED,
    FORMATS,
    AudioError,
    check_output,
    load_audio,
    save_audio,
    trim_silence,
)


def sine(hertz: float, rate: int, seconds: float = 1.0, level: float = 0.5) -> np.ndarray:
    return level * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def pitch_and_level(audio: torch.Tensor, rate: int) -> tuple[float, float]:
    """The strongest frequency in hertz and the amplitude of a sine of the same power, away from the edges."""
    middle = audio[rate // 5 : -rate // 5].double()
    spectrum = torch.fft.rfft(middle * torch.hann_window(len(middle), dtype=torch.double)).abs()
    return int(spectrum.argmax()) * rate / len(middle), float(middle.square().mean().mul(2).sqrt())


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [
        ("a.mp3", 44_100, 2),
        ("a.flac", 48_000, 1),
        ("a.ogg", 22_050, 2),
        ("a.wav", 16_000, 6),
        ("A.WAV", 24_000, 1),
    ],
)
def test_a_sine_comes_back_at_24_khz_with_its_pitch_and_level(tmp_path, name, rate, channels):
    soundfile.write(tmp_path / name, np.stack([sine(440, rate)] * channels, axis=1), rate)
    audio = load_audio(tmp_path / name)
    assert audio.dtype == torch.float32
    assert len(audio) == 24_000
    hertz, level = pitch_and_level(audio, 24_000)
    assert hertz == pytest.approx(440, abs=2)
    assert level == pytest.approx(0.5, abs=0.005)


def test_channels_are_averaged(tmp_path):
    left, right = sine(440, 24_000, level=0.6), np.zeros(24_000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 24_000, subtype="FLOAT")
    torch.testing.assert_close(load_audio(tmp_path / "a.wav"), torch.from_numpy(left / 2).float())


def test_resampling_removes_what_the_new_rate_cannot_hold(tmp_path):
    soundfile.write(tmp_path / "a.wav", sine(10_000, 48_000), 48_000)
    assert load_audio(tmp_path / "a.wav", 16_000)[1000:-1000].abs().max() < 1e-3


def test_samples_beyond_full_scale_are_clamped(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([0.5, 1.5, -2.0]), 24_000, subtype="FLOAT")
    assert load_audio(tmp_path / "a.wav").tolist() == [0.5, 1.0, -1.0]


def test_an_mp3_with_an_id3_tag_is_read(tmp_path):
    soundfile.write(tmp_path / "a.mp3", sine(440, 44_100), 44_100)
    tag = b"ID3\x03\x00\x00\x00\x00\x00\x11TIT2\x00\x00\x00\x07\x00\x00\x00a song"
    (tmp_path / "b.mp3").write_bytes(tag + (tmp_path / "a.mp3").read_bytes())
    torch.testing.assert_close(load_audio(tmp_path / "b.mp3"), load_audio(tmp_path / "a.mp3"))


def written(path: Path, samples: np.ndarray) -> Path:
    soundfile.write(path, samples, 24_000, subtype="FLOAT")
    return path


def error_of_load(path: Path) -> str:
    with pytest.raises(AudioError) as caught:
        load_audio(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "; " in message and "\n" not in message
    return message


def test_bad_inputs_are_named(tmp_path):
    assert "no such file" in error_of_load(tmp_path / "missing.wav")
    assert "is a folder" in error_of_load(tmp_path)
    assert "cannot be read (File name too long)" in error_of_load(tmp_path / ("a" * 300))
    os.mkfifo(tmp_path / "pipe.wav")
    assert "is no file" in error_of_load(tmp_path / "pipe.wav")
    assert "no samples" in error_of_load(written(tmp_path / "none.wav", np.zeros(0)))
    assert "NaN" in error_of_load(written(tmp_path / "nan.wav", np.array([0.0, np.nan])))
    assert "infinite" in error_of_load(written(tmp_path / "inf.wav", np.array([0.0, np.inf])))


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.raw", "a.txt", "a"])
@pytest.mark.parametrize("content", [b"", b"hello there " * 500, np.random.default_rng(0).bytes(100_000)])
def test_other_files_are_not_audio(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert "not readable as audio" in error_of_load(tmp_path / name)


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_sixteen_bits_survive_exactly(tmp_path, name, rate):
    audio = torch.randint(-32768, 32768, (5000,)).float() / 32768
    save_audio(tmp_path / name, audio, rate)
    assert soundfile.info(tmp_path / name).samplerate == rate
    assert soundfile.info(tmp_path / name).subtype == "PCM_16"
    assert torch.equal(load_audio(tmp_path / name, rate), audio)


def test_clipping_is_clamped_not_wrapped(tmp_path):
    save_audio(tmp_path / "a.wav", torch.tensor([2.0, -2.0, 1.0, 0.25]), 24_000)
    assert load_audio(tmp_path / "a.wav").tolist() == [32767 / 32768, -1.0, 32767 / 32768, 0.25]


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3", "a.MP3"])
def test_lossy_formats_keep_pitch_level_and_length(tmp_path, name):
    save_audio(tmp_path / name, torch.from_numpy(sine(440, 24_000)), 24_000)
    audio = load_audio(tmp_path / name)
    assert len(audio) == 24_000
    hertz, level = pitch_and_level(audio, 24_000)
    assert hertz == pytest.approx(440, abs=2)
    assert level == pytest.approx(0.5, abs=0.01)


def test_minutes_of_ogg_are_written_whole(tmp_path):
    save_audio(tmp_path / "a.ogg", torch.randn(8000 * 300) * 0.1, 8000)
    assert soundfile.info(tmp_path / "a.ogg").frames == 8000 * 300


def test_the_same_audio_gives_the_same_bytes_in_another_process(tmp_path):
    code = """if True:
        import sys, torch
        from tokenizer.io.audio import FORMATS, save_audio
        for suffix in FORMATS:
            for comment in ("", "a comment"):
                path = f"{sys.argv[1]}/x{comment}{suffix}"
                save_audio(path, torch.linspace(-0.5, 0.5, 50_000), 24_000, comment=comment)
    """
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
    run = [sys.executable, "-c", code, str(tmp_path / "there")]
    subprocess.run(run, check=True, cwd=ROOT)
    for suffix in FORMATS:
        for comment in ("", "a comment"):
            here, there = (tmp_path / place / f"x{comment}{suffix}" for place in ("here", "there"))
            save_audio(here, torch.linspace(-0.5, 0.5, 50_000), 24_000, comment=comment)
            assert here.read_bytes() == there.read_bytes()


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_comment_is_written_and_changes_no_sample(tmp_path, suffix):
    audio = torch.from_numpy(sine(440, 24_000)).float()
    plain, spoken = tmp_path / f"plain{suffix}", tmp_path / f"spoken{suffix}"
    save_audio(plain, audio, 24_000)
    save_audio(spoken, audio, 24_000, comment=AI_GENERATED)
    assert AI_GENERATED.encode() in spoken.read_bytes()
    with soundfile.SoundFile(plain) as one, soundfile.SoundFile(spoken) as other:
        assert (one.comment, other.comment) == ("", AI_GENERATED)
        assert np.array_equal(one.read(), other.read())


def error_of_save(path: Path, audio: torch.Tensor | None = None, rate: int = 24_000) -> str:
    with pytest.raises(AudioError) as caught:
        save_audio(path, torch.zeros(100) if audio is None else audio, rate)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "; " in message and "\n" not in message
    return message


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_outputs_are_named(tmp_path):
    (tmp_path / "file").touch()
    assert "does not exist" in error_of_save(tmp_path / "missing" / "a.wav")
    assert "does not exist" in error_of_save(tmp_path / "file" / "a.wav")
    assert "is a folder" in error_of_save(tmp_path)
    assert "end the name with" in error_of_save(tmp_path / "a.m4a")
    assert "end the name with" in error_of_save(tmp_path / "a")
    assert "cannot hold 12345 Hz" in error_of_save(tmp_path / "a.mp3", rate=12_345)
    assert "shape [1, 100]" in error_of_save(tmp_path / "a.wav", torch.zeros(1, 100))
    assert "shape [0]" in error_of_save(tmp_path / "a.wav", torch.zeros(0))
    assert "NaN" in error_of_save(tmp_path / "a.wav", torch.tensor([0.0, float("nan")]))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    assert "not writable" in error_of_save(tmp_path / "a.wav")


def test_check_output_needs_no_audio(tmp_path):
    check_output(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="does not exist"):
        check_output(tmp_path / "missing" / "a.wav")
    assert not any(tmp_path.iterdir())


def test_a_failed_save_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.mp3"
    save_audio(path, torch.ones(2400) * 0.5, 24_000)
    old = path.read_bytes()
    error_of_save(path, rate=12_345)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_saved_file_replaces_the_old_one_and_has_ordinary_permissions(tmp_path):
    path, ordinary = tmp_path / "a.wav", tmp_path / "ordinary"
    ordinary.touch()
    for value in (0.25, 0.5):
        save_audio(path, torch.full((10,), value), 24_000)
        assert load_audio(path).tolist() == [value] * 10
    assert path.stat().st_mode == ordinary.stat().st_mode


def test_trim_keeps_a_margin_on_both_sides() -> None:
    tone, silence = torch.sin(torch.arange(24_000) * 0.05), torch.zeros(24_000)
    assert len(trim_silence(torch.cat([silence, tone, silence]), 24_000)) == round(1.3 * 24_000)
    assert torch.equal(trim_silence(tone, 24_000), tone)
    assert len(trim_silence(silence[:7], 24_000)) == 7
