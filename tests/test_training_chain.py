from pathlib import Path

import torch

from tokenizer import AudioTokenizer
from training.chain import last_line
from training.manifest import Clip
from training.pieces import cut
from training.stages import brought, halve, weighted


def test_the_last_whole_training_line_counts(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_line(path) is None
    path.write_text(
        '{"step": 1, "train/lr": 1}\n{"step": 2, "train/lr": 1}\n{"step": 2, "validation/loss": 3}\n{"st'
    )
    assert last_line(path) == {"step": 2, "train/lr": 1}


def clip(name: str, source: str, duration: float) -> Clip:
    return Clip(
        audio=Path(name),
        text="a",
        speaker="s",
        language="en",
        duration=duration,
        source=source,
        license="CC0",
    )


def test_real_speech_is_repeated_up_to_its_share() -> None:
    real, other = clip("r", "LibriSpeech", 10), clip("s", "Kokoro-82M", 70)
    assert weighted([real, other], 0.3) == [real, other, real, real]
    assert weighted([real, clip("s", "hibari-tts", 7000)], 0.3).count(real) == 10
    assert weighted([real, clip("s", "hibari-tts", 5)], 0.3).count(real) == 1
    assert weighted([real], 0.3) == [real]


def test_a_tokenizer_travels_in_half_precision_and_trains_in_full(codec: Path, tmp_path: Path) -> None:
    halve("codec", codec, tmp_path / "half")
    cut(tmp_path / "half", tmp_path / "pieces")
    arrived = AudioTokenizer.from_pretrained(brought(tmp_path / "pieces", tmp_path / "start")).state_dict()
    for name, weight in AudioTokenizer.from_pretrained(codec).state_dict().items():
        assert arrived[name].dtype == torch.float32
        torch.testing.assert_close(arrived[name], weight.half().float(), rtol=0, atol=0)
