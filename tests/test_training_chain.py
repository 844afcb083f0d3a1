from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tokenizer import AudioTokenizer
from training.budget import SHARES
from training.chain import Chain, last_line
from training.manifest import Clip, write_manifest
from training.pieces import cut
from training.run import StopRequest
from training.stages import Setting, brought, codec, encoder, halve, weighted


def test_the_last_whole_training_line_counts(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_line(path) is None
    path.write_text(
        '{"step": 1, "train/lr": 1}\n{"step": 2, "train/lr": 1}\n{"step": 2, "validation/loss": 3}\n{"st'
    )
    assert last_line(path) == {"step": 2, "train/lr": 1}


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    shared = {"device": "cpu", "size": "tiny", "workers": 1, "save_every": 5, "batch_seconds": 1.0, "rows": 9}
    (tmp_path / "corpus").mkdir()
    write_manifest(tmp_path / "corpus" / "manifest.jsonl", [clip("r", "LibriSpeech", 10)])
    return Setting(out=tmp_path, payload=tmp_path, **shared)


def given(command: list[str], option: str) -> str | None:
    return command[command.index(option) + 1] if option in command else None


def test_the_decoder_learns_the_codes_of_the_encoder_stage(setting: Setting, tmp_path: Path) -> None:
    assert given(encoder(setting, 9, 0.0), "--init") is None
    assert "--filter-bank" not in encoder(setting, 9, 0.0)  # tiny has no room for one
    assert "--filter-bank" in encoder(replace(setting, size="mini"), 9, 0.0)
    own = tmp_path / "encoder" / "model"
    own.mkdir(parents=True)
    assert given(codec(setting, 9, 0.0, 7), "--init") == str(own)
    assert given(codec(setting, 9, 0.0, 7), "--trainable") == "decoder"
    assert given(codec(setting, 9, 0.0, 7), "--adversarial-from") == "7"


@pytest.mark.parametrize(
    ("stage", "finished", "skipped"),
    [
        ("encoder", False, []),
        ("encoder", True, ["encoder"]),
        ("codec", False, ["encoder"]),
        ("codec", True, ["encoder", "codec"]),
    ],
)
def test_what_is_brought_along_is_not_made_again(
    setting: Setting, tmp_path: Path, stage: str, finished: bool, skipped: list[str]
) -> None:
    brought_along = replace(setting, codec=tmp_path / "start", size="mini")
    chain = Chain(brought_along, seconds=1, shares=SHARES, until=0, stop=StopRequest())
    for _ in range(2):
        chain.skip(stage, finished=finished)
    assert chain.progress.done == skipped
    assert given(encoder(brought_along, 9, 0.0), "--init") == str(tmp_path / "start")
    assert "--filter-bank" in encoder(brought_along, 9, 0.0), "what was calculated is held"
    assert given(codec(brought_along, 9, 0.0, None), "--init") == str(tmp_path / "start")


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
