"""From a manifest to a voice, by the command lines alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from inference import Synthesizer
from tests.helpers.paths import ROOT
from training.data.manifest import read_manifest


@pytest.mark.slow
def test_a_corpus_becomes_a_voice(corpus: Path, tmp_path: Path) -> None:
    def command(*arguments: object) -> str:
        environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    codec, codes, tts = tmp_path / "codec", tmp_path / "codes", tmp_path / "tts"
    command(
        *["training.train_tokenizer", "tiny", "--data", corpus, "--run", codec, "--steps", 50],
        *["--adversarial-from", 40, "--optimizer.warmup", 5, "--optimizer.ema", 0.8],
    )
    command("training.prepare", codes, "--manifest", corpus, "--tokenizer", codec / "model")
    command(
        *["training.train_tts", "tiny", "--codes", codes, "--run", tts, "--steps", 50, "--batches.rows", 400],
        *["--optimizer.warmup", 5, "--optimizer.ema", 0.8],
    )
    for run, loss in ((codec, "train/loss/mel"), (tts, "validation/loss/codes")):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        values = [line[loss] for line in lines if loss in line]
        assert lines[-1]["step"] == 50 and np.isfinite(values).all()

    clip, text, wav = read_manifest(corpus)[0], "Amber river stone.", tmp_path / "out.wav"
    assert clip.text is not None
    models = ["--model", tts / "model", "--tokenizer", codec / "model", "--device", "cpu"]
    line = command(
        *["inference.cli.main", "clone", clip.audio, "--prompt-text", clip.text, "--text", text],
        *[*models, "--seed", 1, "--depth", 4, "-o", wav],
    )
    assert "depth 4 of 6" in line and "stopped: " in line
    spoken, rate = soundfile.read(wav, dtype="float32")
    assert rate == 24_000 and len(spoken) >= 1920 and len(spoken) % 1920 == 0
    assert np.abs(spoken).max() > 0.001

    synthesizer = Synthesizer.from_pretrained(tts / "model", codec / "model", "cpu")
    same, _ = synthesizer.clone(text, clip.audio, clip.text, depth=4, seed=1)
    np.testing.assert_allclose(spoken, same, atol=1e-4)
