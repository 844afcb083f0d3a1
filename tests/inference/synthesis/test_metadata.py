"""The files of a take: lossless ones hold its samples, the JSON what makes it again."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch

from inference import Synthesizer
from inference.synthesis.metadata import describe, write_take
from tokenizer.codes.cat_file import read_codes


def test_files_of_a_take(bundle: Path, prompt_file: Path, tmp_path: Path) -> None:
    synthesizer = Synthesizer.from_pretrained(bundle, device="cpu")
    voice = synthesizer.voice(prompt_file, "What it says.")
    take = synthesizer.take("Good morning.", voice, depth=3, seed=7, max_seconds=0.6)
    paths = write_take(take, synthesizer.tokenizer, tmp_path / "new", "take", device="cpu")
    wav, flac, cat, about = paths
    assert [path.name for path in paths] == ["take.wav", "take.flac", "take.cat", "take.json"]
    assert torch.equal(read_codes(cat).codes, take.codes)
    for path in (wav, flac):
        samples, rate = soundfile.read(path, dtype="float32")
        assert rate == 24_000 and np.abs(samples - take.audio).max() <= 2**-15
    said = json.loads(about.read_text())
    assert said == {
        "ai_generated": True,
        "seconds": round(take.seconds, 3),
        "sample_rate": 24_000,
        "depth": 3,
        "bit_per_second": take.bitrate,
        "seed": 7,
        "stop_reason": take.stop_reason,
        "text": "Good morning.",
        "prompt_text": "What it says.",
        "voice_sha256": voice.key,
        "mode": "continuation",
        "sampling": said["sampling"],
        "mastered": False,
        "device": "cpu",
    }
    assert said["sampling"]["temperature"] == synthesizer.sampling.temperature
    assert describe(synthesizer.master(take))["mastered"] is True
    assert "text" not in describe(replace(take, request=None))
