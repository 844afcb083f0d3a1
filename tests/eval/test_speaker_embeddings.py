from pathlib import Path

import numpy as np
import pytest
import soundfile

import eval.speaker_embeddings
from eval.speaker_embeddings import SpeakerEmbeddingOptions, embed_speakers
from training.data.manifest import Clip, write_manifest
from training.speakers.teacher_embeddings import read_embeddings


class Loudness:
    """Stands for a speaker encoder: the embedding is how loud a clip is and how long."""

    calls = 0

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def embed(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        Loudness.calls += 1
        return np.array([np.abs(audio).max(), len(audio) / sample_rate])


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SpeakerEmbeddingOptions:
    """Two speakers: one with two clips and one that cannot be read, one with a clip of 3 s."""
    monkeypatch.setattr(eval.speaker_embeddings, "SpeakerEncoder", Loudness)
    Loudness.calls = 0
    clips = []
    for name, speaker, seconds, level in (("a", "x", 1.0, 1.0), ("b", "x", 1.0, 0.5), ("c", "y", 3.0, 0.5)):
        soundfile.write(tmp_path / f"{name}.wav", np.full(round(16_000 * seconds), level * 0.99), 16_000)
        clips.append((name, speaker, seconds))
    (tmp_path / "d.wav").write_bytes(b"nothing")
    made = [
        Clip(
            audio=tmp_path / f"{name}.wav",
            text=None,
            speaker=speaker,
            language="en",
            duration=seconds,
            source="here",
            license="CC0",
        )
        for name, speaker, seconds in (*clips, ("d", "x", 1.0))
    ]
    write_manifest(tmp_path / "manifest.jsonl", made)
    return SpeakerEmbeddingOptions(
        out=tmp_path / "out.npz", manifest=tmp_path / "manifest.jsonl", assets=tmp_path, seconds=2.0
    )


def test_an_embedding_is_the_mean_of_those_of_the_clips(options: SpeakerEmbeddingOptions) -> None:
    found = embed_speakers(options)
    first, second = (np.array(v) / np.linalg.norm(v) for v in ([0.99, 1.0], [0.495, 1.0]))
    np.testing.assert_allclose(found["x"], (first + second) / 2, atol=1e-4)
    cut = np.array([0.495, 2.0])
    np.testing.assert_allclose(found["y"], cut / np.linalg.norm(cut), atol=1e-4)
    stored = read_embeddings(options.out, ["y", "x"])
    np.testing.assert_allclose(stored[0], found["y"], atol=1e-6)


def test_existing_embeddings_are_kept(options: SpeakerEmbeddingOptions) -> None:
    first = embed_speakers(options)
    calls = Loudness.calls
    again = embed_speakers(options)
    assert Loudness.calls == calls == 3
    np.testing.assert_array_equal(again["x"], first["x"])
