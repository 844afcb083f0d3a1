"""The TTS training as a command: killed, and shared by two processes or more passes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cat_tts.speakers import voice_vector
from cat_tts.speakers.voice_vector import VoiceVectorEncoder
from tests.helpers.interruption import assert_equal, saved_state
from tests.helpers.paths import ROOT
from training.train_tts import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("datasets_cache")]

RATE = 1e-3


def start(*command: object) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    arguments = [str(part) for part in command]
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )


def stop_after(process: subprocess.Popen, run: Path, steps: int, number: signal.Signals) -> str:
    """Let it log so many steps, then signal it; what it wrote to stderr."""
    deadline = time.monotonic() + 300
    while len(metrics(run)) < steps:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(number)
    return process.communicate(timeout=300)[1]


def metrics(run: Path) -> list[dict[str, float]]:
    """Of the training, whole lines only: the run may be writing one."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    read = [json.loads(line) for line in lines if line.endswith("\n")]
    return [line for line in read if "train/loss/codes" in line]


def test_a_killed_run_loses_only_what_came_after_its_last_save(codes: Path, tmp_path: Path) -> None:
    arguments = ["tiny", "--codes", codes, "--steps", 60, "--save-every", 7, "--dropout.deep-part", 0.5]
    for steps in (9, 30):  # killed, and killed again after it went on
        command = ["-m", "training.train_tts", *arguments, "--run", tmp_path / "killed"]
        process = start(*command)
        stop_after(process, tmp_path / "killed", steps, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        saved = json.loads((tmp_path / "killed" / "state" / "step.json").read_text())["step"]
        logged = metrics(tmp_path / "killed")[-1]["step"]
        assert saved % 7 == 0 and logged - 8 <= saved < 60
    for run in ("killed", "whole"):
        main([str(part) for part in [*arguments, "--run", tmp_path / run]])
    assert_equal(saved_state(tmp_path / "killed"), saved_state(tmp_path / "whole"))
    assert [line["step"] for line in metrics(tmp_path / "killed")] == list(range(1, 61))


@pytest.mark.parametrize(("config", "steps", "voice"), [("ddp", 20, True), ("fsdp2", 12, False)])
def test_two_processes_stopped_and_resumed_learn_what_one_learns(
    codes: Path, tmp_path: Path, config: str, steps: int, voice: bool
) -> None:
    """Two passes in each of two processes, one after the other, or four in one; with voice vectors or not."""
    length = ["--steps", steps, "--batches.passes", 4, "--batches.rows", 100, "--dropout.deep-part", 0.5]
    rates = ["--optimizer.learning-rate", RATE]
    speaker = []
    if voice:
        VoiceVectorEncoder(voice_vector.tiny()).save_pretrained(tmp_path / "encoder")
        speaker = ["--speaker-encoder", tmp_path / "encoder"]
    arguments = [str(part) for part in ["tiny", "--codes", codes, *length, *rates, *speaker]]
    launch = ["-m", "accelerate.commands.launch", "--config_file", f"training/accelerate/{config}.yaml"]
    command = [*launch, "-m", "training.train_tts", *arguments, "--run", tmp_path / "two"]
    stop_after(start(*command), tmp_path / "two", 3, signal.SIGTERM)
    step = json.loads((tmp_path / "two" / "state" / "step.json").read_text())["step"]
    assert 3 <= step < steps
    resumed = start(*command)
    written = resumed.communicate(timeout=300)[1]
    assert resumed.returncode == 0, written
    assert (tmp_path / "two" / "state" / "random_states_1.pkl").exists()
    sharded = (tmp_path / "two" / "state" / "pytorch_model_fsdp_0" / "__1_0.distcp").exists()
    assert sharded == (config == "fsdp2")

    main([*arguments, "--run", str(tmp_path / "one")])
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert [line["step"] for line in two] == list(range(1, steps + 1))
    for single, shared in zip(one, two, strict=True):
        for name, value in single.items():
            if "per_second" not in name:
                assert shared[name] == pytest.approx(value, rel=1e-4), (single["step"], name)
    models = [load_file(tmp_path / run / "model" / "model.safetensors") for run in ("one", "two")]
    torch.testing.assert_close(models[1], models[0], rtol=0, atol=RATE * steps / 20)


def test_too_few_passes_are_refused(codes: Path, tmp_path: Path) -> None:
    launch = ["-m", "accelerate.commands.launch", "--config_file", "training/accelerate/ddp.yaml"]
    process = start(*launch, "-m", "training.train_tts", "tiny", "--codes", codes, "--run", tmp_path / "run")
    assert "batches.passes=1 in 2 processes: give a multiple of 2" in process.communicate(timeout=300)[1]
    assert process.returncode != 0 and not (tmp_path / "run").exists()
