"""Which recogniser is there, and what is said when none can be."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from inference.demo.recognizer import MODEL_SIZES, Whisper, find_recognizer

installed = importlib.util.find_spec("faster_whisper") is not None


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no model of Whisper for faster-whisper \(model\.bin is missing\)"):
        find_recognizer(tmp_path)


def test_a_folder_with_a_model_needs_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.bin").write_bytes(b"")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install faster-whisper"):
        find_recognizer(tmp_path)
    assert find_recognizer() is None


@pytest.mark.skipif(not installed, reason="needs faster-whisper")
def test_the_best_that_was_fetched_is_found_and_nothing_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the cache of the hub, under the names that its models have there."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    assert find_recognizer() is None
    for size in ("tiny", "base"):
        folder = tmp_path / f"models--Systran--faster-whisper-{size}"
        (folder / "snapshots" / "1").mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("1")
        found = find_recognizer()
        assert isinstance(found, Whisper) and size in MODEL_SIZES
        assert found.folder == folder / "snapshots" / "1"
        with pytest.raises(RuntimeError, match=r"model\.bin"):
            found(np.zeros(24_000, np.float32), 24_000)
