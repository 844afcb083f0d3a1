"""The `cat-tts` command: what it writes and says, and how it refuses."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from inference import Synthesizer
from inference.engine.options import UNWATCHED, SynthesisOptions
from tests.helpers.command import PROMPT_TEXT, TEXT, Command, arguments, refused
from tests.helpers.paths import ROOT


@pytest.mark.parametrize("depth", [1, 3, 6])
def test_the_file_is_the_take(
    clone: Command, bundle: Path, prompt_file: Path, tmp_path: Path, depth: int
) -> None:
    assert clone(depth=depth, seed=4).code == 0
    take = Synthesizer.from_pretrained(bundle, device="cpu").synthesize(
        TEXT,
        Synthesizer.from_pretrained(bundle, device="cpu").load_voice(prompt_file, PROMPT_TEXT),
        SynthesisOptions(depth=depth, seed=4, policy=UNWATCHED),
    )
    written, rate = soundfile.read(tmp_path / "out.wav", dtype="int16")
    assert rate == 24_000 and len(written) == 1920 * len(take.codes)
    assert np.array_equal(written, (take.audio.astype(np.float64) * 32_768).round().clip(-32_768, 32_767))
    assert np.abs(written).max() > 100
    assert [path.name for path in tmp_path.iterdir()] == ["out.wav"]


@pytest.mark.parametrize("depth", [1, 3, 6])
@pytest.mark.parametrize(("name", "rate", "channels"), [("a.mp3", 44_100, 2), ("a.flac", 48_000, 1)])
def test_prompts_of_other_kinds(
    clone: Command, voice: np.ndarray, tmp_path: Path, name: str, rate: int, channels: int, depth: int
) -> None:
    samples = soxr.resample(voice, 24_000, rate)
    soundfile.write(tmp_path / name, np.stack([samples] * channels, 1), rate)
    result = clone(name, depth=depth, max_seconds=0.4)
    info = soundfile.info(tmp_path / "out.wav")
    assert (result.code, result.err) == (0, "")
    assert (info.samplerate, info.channels) == (24_000, 1)
    assert 1 <= info.frames / 1920 <= 5 and info.frames % 1920 == 0
    assert f"depth {depth} of 6, " in result.out and f"{info.frames / 24_000:.2f} s of audio" in result.out


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_other_kinds_of_output(clone: Command, tmp_path: Path, suffix: str) -> None:
    assert clone(output=f"out.{suffix}", max_seconds=0.4).code == 0
    info = soundfile.info(tmp_path / f"out.{suffix}")
    assert info.format == {"flac": "FLAC", "ogg": "OGG", "mp3": "MP3"}[suffix] and info.samplerate == 24_000


@pytest.mark.parametrize(
    ("seconds", "stopped"), [(None, "end decided"), (0.16, "length limit"), (0.08, "length limit")]
)
def test_the_last_line_says_how_it_went(
    clone: Command, tmp_path: Path, seconds: float | None, stopped: str
) -> None:
    result = clone(depth=6, seed=11, max_seconds=seconds)
    printed = re.fullmatch(
        r"out\.wav: device cpu, float32, depth 6 of 6, 375 bit/s, seed 11, (\d+\.\d\d) s of audio, "
        r"RTF (\d+\.\d\d), stopped: (.*)",
        result.out.splitlines()[-1],
    )
    assert printed and printed[3] == stopped
    assert float(printed[1]) == soundfile.info(tmp_path / "out.wav").frames / 24_000
    assert seconds in (None, float(printed[1]))
    assert float(printed[2]) > 0
    assert result.err == ""


@pytest.mark.parametrize("suffix", ["wav", "ogg"])
def test_same_seed_same_bytes(clone: Command, tmp_path: Path, suffix: str) -> None:
    written = []
    for name, seed in [("a", 7), ("b", 7), ("c", 8)]:
        assert clone(seed=seed, output=f"{name}.{suffix}").code == 0
        written.append((tmp_path / f"{name}.{suffix}").read_bytes())
    assert written[0] == written[1] != written[2]


def test_sampling_options_arrive(clone: Command, tmp_path: Path) -> None:
    """The likeliest codes need no luck: seeds agree where only codes and no ends are drawn."""
    written = []
    for options in [{"temperature": 0, "seed": 1}, {"temperature": 0, "seed": 2}, {"top_k": 1}, {"seed": 1}]:
        assert clone(decision_temperature=0, max_seconds=0.4, **options).code == 0
        written.append((tmp_path / "out.wav").read_bytes())
    assert written[0] == written[1] == written[2] != written[3]


def test_published_models(clone: Command, published: tuple[Path, Path], tmp_path: Path) -> None:
    """Both layouts go through the same command, and each mode is another take."""
    written = []
    for options in [{}, {"mode": "reference", "prompt_text": None}]:
        folders = {"model": published[0], "tokenizer": published[1]}
        result = clone(depth=4, max_seconds=0.16, **folders, **options)
        assert (result.code, result.err) == (0, "")
        assert "depth 4 of 32, 300 bit/s" in result.out and "0.16 s of audio" in result.out
        written.append((tmp_path / "out.wav").read_bytes())
    assert written[0] != written[1]


def silent(path: Path) -> None:
    soundfile.write(path, np.zeros(24_000), 24_000)


def lasting(seconds: float) -> Callable[[Path], None]:
    noise = 0.1 * np.random.default_rng(0).standard_normal(round(seconds * 24_000))
    return lambda path: soundfile.write(path, noise, 24_000)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.wav", lambda path: path.write_bytes(b""), r"a\.wav: not readable as audio; convert it"),
        ("a.mp3", lambda path: path.write_text("hello\n" * 99), r"a\.mp3: not readable as audio; convert it"),
        ("a.flac", lambda path: path.write_bytes(bytes(range(256))), r"a\.flac: not readable as audio"),
        ("a.wav", lambda path: soundfile.write(path, np.zeros(0), 24_000), r"a\.wav: holds no samples"),
        ("a.wav", Path.mkdir, r"a\.wav: is a folder"),
        ("a.wav", silent, r"a\.wav: is silent \(-180 dBFS\); record the voice again"),
        ("a.wav", lasting(0.49), r"a\.wav: lasts 0\.49 s; a prompt needs at least 0\.5 s"),
    ],
)
def test_prompts_that_no_model_takes(
    clone: Command, tmp_path: Path, name: str, write: Callable[[Path], object], message: str
) -> None:
    """Said without looking for the model."""
    write(tmp_path / name)
    refused(clone(name, model=tmp_path / "no model"), message, tmp_path, name)


def test_prompt_that_is_too_long(clone: Command, tmp_path: Path) -> None:
    lasting(8.1)(tmp_path / "a.wav")
    message = r"a\.wav: lasts 8\.1 s; this model takes prompts of up to 8 s, so cut it"
    refused(clone("a.wav"), message, tmp_path, "a.wav")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "gone.wav"}, r"gone\.wav: no such file"),
        ({"text": ""}, "the text is empty"),
        ({"text": " \n\t"}, "the text is empty"),
        ({"text": "?! …"}, r"the text '\?! …' has no letter or digit"),
        ({"text": "!\n\n!"}, r"the text '!\\n\\n!' has no letter or digit"),
        ({"prompt_text": None}, "the prompt text is empty"),
        ({"prompt_text": " "}, "the prompt text is empty"),
        ({"output": "gone/out.wav"}, r"gone/out\.wav: the folder gone does not exist"),
        ({"output": "out.aac"}, r"out\.aac: unknown kind of audio file; end the name with one of \.wav"),
        ({"output": "out"}, "out: unknown kind of audio file"),
        ({"temperature": -1}, r"temperature=-1\.0: give 0 for the likeliest, or a positive number"),
        ({"decision_temperature": -1}, r"decision_temperature=-1\.0: give 0"),
        ({"top_p": 0}, r"top_p=0\.0: give a probability"),
        ({"device": "abacus"}, "device 'abacus': not on this machine"),
        ({}, r".*no model: no such model folder; give a folder or a hub id"),
    ],
)
def test_mistakes_that_need_no_model(
    clone: Command, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    """Said without looking for the model, which may be large or far away."""
    refused(clone(**{"model": tmp_path / "no model", **options}), message, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth 0: this model has 6 codebooks, choose 1 to 6"),
        ({"depth": 7}, "depth 7: this model has 6 codebooks, choose 1 to 6"),
        ({"depth": -1}, "depth -1: this model has 6 codebooks"),
        ({"mode": "reference"}, "this model only continues prompts"),
        ({"max_seconds": 0}, r"a length limit of 0\.0 s"),
        ({"max_seconds": "nan"}, "a length limit of nan s"),
        ({"max_seconds": "inf"}, "a length limit of inf s"),
        ({"seed": 2**64}, "seed=18446744073709551616: give a whole number"),
    ],
)
def test_what_this_model_does_not_offer(
    clone: Command, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    refused(clone(**options), message, tmp_path)


def test_models_that_are_none_or_do_not_fit(
    clone: Command, published: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    missing = r"empty/config\.json: missing; this folder does not hold a model"
    refused(clone(model="empty", tokenizer=published[1]), missing, tmp_path, "empty")
    refused(clone(tokenizer=published[1]), "the TTS speaks 6 codebooks of 32 codes", tmp_path, "empty")


def test_a_failure_leaves_the_old_file(clone: Command, tmp_path: Path) -> None:
    (tmp_path / "out.wav").write_text("an older take")
    refused(clone(depth=99), "depth 99", tmp_path, "out.wav")
    assert (tmp_path / "out.wav").read_text() == "an older take"


@pytest.mark.parametrize(
    "options",
    [{"temperature": "warm"}, {"depth": "deep"}, {"temprature": 1}, {"mode": "copy"}, {"text": None}],
)
def test_what_cannot_be_parsed(clone: Command, tmp_path: Path, options: dict[str, object]) -> None:
    """Answered by the parser, which names the option."""
    result = clone(**options)
    assert result.code == 2 and result.out == "" and not list(tmp_path.iterdir())
    assert f"--{next(iter(options))}" in result.err


def test_as_a_process(clone: Command, bundle: Path, prompt_file: Path, tmp_path: Path) -> None:
    """One line on stdout, none on stderr, and the bytes of a call in this process."""
    options = {"text": TEXT, "prompt_text": PROMPT_TEXT, "model": bundle, "device": "cpu"}
    words = [str(prompt_file), *arguments({**options, "output": tmp_path / "process.wav"})]
    command = [sys.executable, "-m", "inference.cli.main", "clone", *words]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # as here: sums depend on how they are shared out
    done = subprocess.run(
        command, cwd=ROOT, env=one_thread, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)
    assert clone().code == 0
    assert (tmp_path / "process.wav").read_bytes() == (tmp_path / "out.wav").read_bytes()
