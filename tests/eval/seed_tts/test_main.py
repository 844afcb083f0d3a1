"""Seed-TTS-Eval as a whole: scores by hand, what is missing, and runs that are killed and go on."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from accelerate import PartialState

from eval import assets
from eval.metrics.audio import MetricError
from eval.metrics.backends import Speakers
from eval.seed_tts import __main__ as seed_tts
from eval.seed_tts.scorer import Scorer
from eval.seed_tts.utterance_list import read_list
from inference import SynthesisOptions
from tests.helpers.paths import ROOT
from tokenizer import load_audio, save_audio

FOLDER = assets.default_folder()


class Killed(Exception):
    """Ends a run without its knowledge."""


class EnergyRecognizer:
    """Transcribes a word every 0.2 s: fox where it is louder than half the loudest, else dog."""

    name, official, files = "energy", False, {"energy": "0"}

    def __init__(self, patience: int = 1000) -> None:
        self.patience = patience

    def transcribe(self, path: Path) -> str:
        self.patience -= 1
        if self.patience < 0:
            raise Killed
        audio = load_audio(path, 16_000)
        loud = audio[: len(audio) // 3200 * 3200].unflatten(0, (-1, 3200)).abs().amax(1)
        return " ".join("fox" if part > audio.abs().max() / 2 else "dog" for part in loud)


class BandEncoder:
    """Knows a speaker by the energy in eight bands."""

    def embed(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        if not audio.any():
            raise MetricError("similarity is undefined: the audio is silent")
        bands = np.array_split(np.abs(np.fft.rfft(audio, 1024)), 8)
        return np.array([band.mean() for band in bands])


def scorer(patience: int = 1000) -> Scorer:
    return Scorer(
        EnergyRecognizer(patience),
        Speakers(name="bands", official=False, files={}, encoder=BandEncoder()),
        "en",
    )


def run(*arguments: object, patience: int = 1000) -> dict:
    options = seed_tts.parse([str(argument) for argument in arguments])
    lines = read_list(options.meta, options.language)[: options.limit]
    results = seed_tts.run(options, lines, scorer(patience), PartialState(cpu=True))
    assert results is not None
    return results


def contents(out: Path) -> dict[str, bytes]:
    """All that a run leaves but what tells of the machine."""
    files = [
        *(out / name for name in ("takes.jsonl", "results.json", "results.md")),
        *out.glob("wavs/**/*.wav"),
    ]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.fixture
def meta(tmp_path: Path, prompt_file: Path) -> Path:
    lines = [f"u{i}|What the recording says.|{prompt_file}|{text}" for i, text in enumerate(TEXTS)]
    (tmp_path / "meta.lst").write_text("\n".join(lines))
    return tmp_path / "meta.lst"


TEXTS = ("Fox fox.", "The old dog.", "A red fox.", "Dog!", "The young dog sleeps.")


def test_a_run_that_is_killed_goes_on_and_ends_in_the_same_bytes(
    bundle: Path, meta: Path, tmp_path: Path
) -> None:
    flags = ["--model", bundle, "--meta", meta, "--depths", "3,1", "--seeds", 2, "--slots", 1]
    results = run(*flags, "--out", tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    assert len(whole) == 3 + 2 * 2 * 5
    assert [(row["depth"], row["takes"], row["missing"]) for row in results["rows"]] == [
        (3, 10, 0),
        (1, 10, 0),
    ]
    assert sum(results["rows"][0]["stops"].values()) == 10
    run_record = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert run_record["rtf"].keys() == {"1", "3"} and min(run_record["rtf"].values()) > 0

    out = tmp_path / "killed"
    for patience in (3, 9):
        with pytest.raises(Killed):
            run(*flags, "--out", out, patience=patience)
    kept = (out / "work" / "scores-0.jsonl").read_bytes()
    assert kept.count(b"\n") == 12
    (out / "work" / "scores-0.jsonl").write_bytes(kept[:-7])
    (out / "work" / "groups" / "000002.json").unlink()
    (out / "wavs" / "depth-1" / "seed-2" / "u4.wav").unlink()
    (out / "wavs" / "depth-1" / "seed-2" / ".0123.partial").touch()
    run(*flags, "--out", out, patience=9)
    assert contents(out) == whole
    assert not list(out.rglob("*.partial"))

    before = (out / "work" / "groups" / "000000.json").stat().st_mtime_ns
    run(*flags, "--out", out, patience=0)  # nothing is left to be done
    assert (out / "work" / "groups" / "000000.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r'holds a run of another system \(.*"seeds": 2.*"seeds": 1'):
        run(*flags, "--seeds", 1, "--out", out)
    assert contents(out) == whole


def test_what_a_model_refuses_counts_as_missing(bundle: Path, tmp_path: Path, prompt_file: Path) -> None:
    (tmp_path / "meta.lst").write_text(f"u0|Says.|{prompt_file}|\u00a3 \u20ac\nu1|Says.|{prompt_file}|Fox.")
    (row,) = run("--model", bundle, "--meta", tmp_path / "meta.lst", "--out", tmp_path / "out")["rows"]
    assert (row["takes"], row["missing"]) == (2, 1)
    refused = json.loads((tmp_path / "out" / "takes.jsonl").read_text().splitlines()[0])
    assert (refused["wer"], refused["similarity"], refused["deletions"]) == (1, 0, 1)
    assert "has no letter or digit" in refused["error"]


def test_scores_of_files_by_hand(meta: Path, tmp_path: Path, voice: np.ndarray) -> None:
    wavs, audio = tmp_path / "wavs", torch.from_numpy(voice)
    wavs.mkdir()
    save_audio(wavs / "u0.wav", audio[:9600], 24_000)  # of two words
    save_audio(wavs / "u1.wav", torch.zeros(24_000), 24_000)
    (wavs / "u2.wav").write_text("no audio")
    save_audio(wavs / "u4.wav", audio[:9600], 24_000)
    flags = ["--meta", meta, "--wavs", wavs, "--out", tmp_path / "out"]
    results = run(*flags)
    takes = [json.loads(line) for line in (tmp_path / "out" / "takes.jsonl").read_text().splitlines()]
    transcript = EnergyRecognizer().transcribe(wavs / "u0.wav")
    assert transcript in ("fox fox", "dog fox", "fox dog")
    wrong = 2 - transcript.split().count("fox")
    assert [take["wer"] for take in takes] == [wrong / 2, 4 / 3, 1, 1, 1]
    assert [take["deletions"] for take in takes] == [0, 0, 1, 1, 1 / 2]
    assert [take["seconds"] for take in takes] == [0.4, 1, 0, 0, 0.4]
    assert [take["error"] for take in takes] == [
        None,
        "similarity is undefined: the audio is silent",
        "not readable as audio; convert it to wav, flac, ogg or mp3",
        "there is no file",
        None,
    ]
    assert takes[0]["similarity"] > 0.5 and [take["similarity"] for take in takes[1:4]] == [0, 0, 0]
    (row,) = results["rows"]
    assert (row["missing"], row["depth"], row["wer"]["mean"]) == (
        2,
        None,
        pytest.approx((wrong / 2 + 4 / 3 + 3) / 5),
    )
    assert row["wer_official_micro"] == (wrong + 4 + 3 + 1 + 4) / (2 + 3 + 3 + 1 + 4)

    with pytest.raises(ValueError, match=r"--strict: 1 of 5 takes are missing \(u3\)"):
        run(*flags, "--strict")
    save_audio(
        wavs / "u3.wav", audio[:4800], 24_000
    )  # what was missing is transcribed, the rest is not again
    assert run(*flags, patience=1)["rows"][0]["missing"] == 1
    with pytest.raises(ValueError, match=r"--strict: 1 of 5 takes are missing \(u2\)"):
        run(*flags, "--strict")
    with pytest.raises(ValueError, match="holds something else than a run"):
        run("--meta", meta, "--wavs", wavs, "--out", wavs)


def test_lists_without_prompts_have_errors_alone(tmp_path: Path, bundle: Path, voice: np.ndarray) -> None:
    (tmp_path / "meta.lst").write_text("u0|fox fox")
    save_audio(tmp_path / "u0.wav", torch.from_numpy(voice), 24_000)
    (row,) = run("--meta", tmp_path / "meta.lst", "--wavs", tmp_path, "--out", tmp_path / "out")["rows"]
    assert row["similarity"] is None
    assert "| - | - |" in (tmp_path / "out" / "results.md").read_text()
    with pytest.raises(ValueError, match="u0 has no transcript of its prompt"):
        run("--meta", tmp_path / "meta.lst", "--model", bundle, "--out", tmp_path / "other")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--wavs", "none"], "--wavs none: there is no such folder"),
        (["--wavs", ".", "--seeds", "2"], "options of a model are not for --wavs"),
        (["--wavs", ".", "--retries", "0"], "options of a model are not for --wavs"),
        (["--wavs", ".", "--no-adapt-decoder"], "options of a model are not for --wavs"),
        (["--retries", "-1"], "retries=-1: give a whole number from 0 to 100"),
        (["--adapt-steps", "1001"], "adapt_steps=1001: give a whole number from 0 to 1000"),
        (["--best-of", "65"], "candidates=65: give a whole number from 1 to 64"),
        (["--asr-model", "x"], "--asr-model goes with --asr whisper-large-v3"),
        (["--language", "en", "--asr", "paraformer"], "paraformer transcribes Chinese"),
        (["--seeds", "0"], "'0' is not a whole number above 0"),
    ],
)
def test_mistakes_end_in_one_line(
    meta: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(meta.parent)
    try:
        code = seed_tts.main(["--meta", str(meta), "--out", "out", *arguments])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        ([], {}),
        (["--retries", 2, "--best-of", 1, "--adapt-steps", 0], {}),
        (["--retries", 0, "--best-of", 4], {"retries": 0, "candidates": 4}),
        (["--no-adapt-decoder", "--adapt-steps", 5], {"adapt_decoder": False, "adapt_steps": 5}),
    ],
)
def test_a_run_speaks_as_users_do_and_names_what_it_changes(
    bundle: Path, meta: Path, tmp_path: Path, arguments: list[object], changed: dict[str, object]
) -> None:
    flags = ["--model", bundle, "--meta", meta, "--out", tmp_path / "out", *arguments]
    options = seed_tts.parse([str(flag) for flag in flags])
    model = seed_tts.SpeakingModel(options, read_list(meta, "en"), "cpu")
    assert seed_tts.changes(model.options) == changed
    assert (model.options == SynthesisOptions()) is not bool(changed)
    name = ", ".join([bundle.name, *(f"{option} {value}" for option, value in changed.items())])
    system = {option: model.system[option] for option in changed}
    assert model.system["name"] == name and system == changed


def test_a_model_without_the_depth_is_refused(bundle: Path, meta: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--depths 2,99: this model has depths 1 to \d"):
        run("--model", bundle, "--meta", meta, "--depths", "2,99", "--out", tmp_path / "out")


@pytest.mark.slow
@pytest.mark.skipif(FOLDER is None, reason="CAT_TTS_EVAL_ASSETS names no folder")
def test_two_processes_killed_for_good_end_in_the_bytes_of_one(
    bundle: Path, meta: Path, tmp_path: Path
) -> None:
    flags = ["--model", bundle, "--meta", meta, "--depths", "3,1", "--slots", "1"]
    arguments = [str(part) for part in ["-m", "eval.seed_tts", *flags]]
    launch = ["-m", "accelerate.commands.launch", "--config_file", "training/accelerate/ddp.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(out: Path) -> subprocess.Popen:
        command = [sys.executable, *launch, *arguments, "--out", str(out)]
        return subprocess.Popen(command, cwd=ROOT, env=environment)

    two = start(tmp_path / "two")
    deadline = time.monotonic() + 300
    while not list((tmp_path / "two").glob("work/scores-*.jsonl")):
        assert two.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    for process in [*psutil.Process(two.pid).children(recursive=True), two]:
        process.kill()
    two.wait()
    assert not (tmp_path / "two" / "results.json").exists()
    resumed = start(tmp_path / "two")
    assert resumed.wait(300) == 0
    assert {path.name for path in (tmp_path / "two" / "work").glob("scores-*")} == {
        "scores-0.jsonl",
        "scores-1.jsonl",
    }
    single = [sys.executable, *arguments, "--out", str(tmp_path / "one")]
    assert subprocess.run(single, cwd=ROOT, env=environment, check=False).returncode == 0
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
