"""The files of a result: lossless audio, codes, and a JSON description."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch

from inference import Synthesizer
from inference.engine.options import UNWATCHED, SynthesisOptions
from inference.synthesis.metadata import describe, write_result
from tokenizer.codes.cat_file import read_codes


def test_files_of_a_result(bundle: Path, prompt_file: Path, tmp_path: Path) -> None:
    synthesizer = Synthesizer.from_pretrained(bundle, device="cpu")
    voice = synthesizer.load_voice(prompt_file, "What it says.")
    result = synthesizer.synthesize(
        "Good morning.", voice, SynthesisOptions(depth=3, seed=7, max_seconds=0.6, policy=UNWATCHED)
    )
    paths = write_result(result, synthesizer.tokenizer, tmp_path / "new", "speech", device="cpu")
    wav, flac, cat, description_file = paths
    assert [path.name for path in paths] == ["speech.wav", "speech.flac", "speech.cat", "speech.json"]
    assert torch.equal(read_codes(cat).codes, result.codes)
    for path in (wav, flac):
        samples, rate = soundfile.read(path, dtype="float32")
        assert rate == 24_000 and np.abs(samples - result.audio).max() <= 2**-15
    description = json.loads(description_file.read_text())
    assert description == {
        "ai_generated": True,
        "seconds": round(result.seconds, 3),
        "sample_rate": 24_000,
        "depth": 3,
        "bit_per_second": result.bitrate,
        "seed": 7,
        "stop_reason": result.stop_reason,
        "attempts": 1,
        "intelligibility": None,
        "acceptable": result.acceptable,
        "text": "Good morning.",
        "prompt_text": "What it says.",
        "voice_sha256": voice.key,
        "mode": "continuation",
        "sampling": description["sampling"],
        "depth_extended": False,
        "device": "cpu",
    }
    assert description["sampling"]["temperature"] == synthesizer.sampling.temperature
    assert describe(synthesizer.extend_depth(result))["depth_extended"] is True
    assert "text" not in describe(replace(result, request=None))
