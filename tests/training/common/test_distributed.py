"""The tokenizer's training as a command: interrupted, and shared by two processes."""

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

from tests.helpers.interruption import assert_equal, saved_state
from tests.helpers.paths import ROOT
from training.train_tokenizer import main

SMALL = ["--mel-windows", 128, 1024, "--batches.batch-seconds", 3.2, "--batches.utterances", 0.5]
RATE = 1e-4
QUIET = ["--monitor.gradients-every", 1000, "--optimizer.learning-rate", RATE]


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
        time.sleep(0.02)
    process.send_signal(number)
    return process.communicate(timeout=300)[1]


def metrics(run: Path) -> list[dict[str, float]]:
    """Whole lines only: the run may be writing one."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def test_ctrl_c_saves_says_so_and_loses_nothing(corpus: Path, tmp_path: Path) -> None:
    arguments = ["tiny", "--data", corpus, "--steps", 24, "--adversarial-from", 2, "--mel-windows", 128, 1024]
    process = start("-m", "training.train_tokenizer", *arguments, "--run", tmp_path / "stopped")
    written = stop_after(process, tmp_path / "stopped", 3, signal.SIGINT)
    step = json.loads((tmp_path / "stopped" / "state" / "step.json").read_text())["step"]
    assert process.returncode == 0, written
    assert written.splitlines()[-1] == f"stop requested: saved at step {step}"
    assert 3 <= step < 24 and "Traceback" not in written

    for run in ("stopped", "whole"):
        main([str(part) for part in [*arguments, "--run", tmp_path / run]])
    assert_equal(saved_state(tmp_path / "stopped"), saved_state(tmp_path / "whole"))


@pytest.mark.parametrize(("config", "steps", "adversarial_from"), [("ddp", 20, 8), ("fsdp2", 10, 4)])
def test_two_processes_stopped_and_resumed_learn_what_one_learns(
    corpus: Path, tmp_path: Path, config: str, steps: int, adversarial_from: int
) -> None:
    length = ["--steps", steps, "--adversarial-from", adversarial_from, "--batches.multiple", 2]
    arguments = [str(part) for part in ["tiny", "--data", corpus, *length, *SMALL, *QUIET]]
    launch = ["-m", "accelerate.commands.launch", "--config_file", f"training/accelerate/{config}.yaml"]
    command = [*launch, "-m", "training.train_tokenizer", *arguments, "--run", tmp_path / "two"]
    stop_after(start(*command), tmp_path / "two", 4, signal.SIGTERM)
    step = json.loads((tmp_path / "two" / "state" / "step.json").read_text())["step"]
    assert 4 <= step < steps
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
            if name.startswith("train/loss/"):
                assert shared[name] == pytest.approx(value, rel=1e-4), (single["step"], name)
        assert shared["train/grad_norm"] == pytest.approx(single["train/grad_norm"], rel=1e-2)
    assert one[-1].keys() == two[-1].keys() and "train/loss/feature" in one[-1]
    assert sum("train/loss/semantic" in line for line in one) >= steps / 4

    models = [load_file(tmp_path / run / "model" / "model.safetensors") for run in ("one", "two")]
    torch.testing.assert_close(models[1], models[0], rtol=0, atol=RATE * steps / 4)


def test_a_launcher_that_starts_too_few_is_noticed(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(SystemExit) as ended:
        main(["tiny", "--data", str(corpus), "--run", str(tmp_path / "run")])
    assert ended.value.code == 2
    assert "--config_file training/accelerate/ddp.yaml" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
