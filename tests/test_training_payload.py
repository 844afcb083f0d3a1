import json
from pathlib import Path

import pytest
import soundfile
import torch
from corpus import write_corpus
from safetensors.torch import load_file, save_file

from tokenizer.audio import load_audio
from training.manifest import read_manifest
from training.payload import Payload, main, make, read, teacher_of
from training.pieces import cut, join
from training.script import read_script
from training.teacher_kokoro import CONFIG, VOICES, WEIGHTS, row_of


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("the cat sat on the mat\nA long road leads over the hill.\n")
    return path


@pytest.fixture
def human(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "human", clips=4).parent


def test_a_payload_arrives_whole_in_pieces(texts: Path, human: Path, tmp_path: Path) -> None:
    made = make(tmp_path / "payload", hours=0.01, kokoro=None, human=[human], texts=texts)
    assert made == Payload(hours=0.01, lines=13, speakers=400, seed=0, teacher="hibari")
    cut(tmp_path / "payload", tmp_path / "pieces", 10_000)
    folder = join(tmp_path / "pieces", tmp_path / "there")
    assert read(folder) == made and teacher_of(folder, "cuda") == ["--teacher", "hibari"]
    assert list(read_script(folder / "script.jsonl")) == list(read_script(tmp_path / "payload/script.jsonl"))
    for there, here in zip(
        read_manifest(folder / "speech/manifest.jsonl"), read_manifest(human / "manifest.jsonl"), strict=True
    ):
        assert (there.text, there.speaker, there.license) == (here.text, here.speaker, here.license)
        heard, original = load_audio(there.audio), load_audio(here.audio)
        assert abs(len(heard) - len(original)) < 24
        assert there.audio.stat().st_size < 0.2 * here.audio.stat().st_size
        assert torch.corrcoef(torch.stack([heard[:24_000], original[:24_000]]))[0, 1] > 0.9
        assert soundfile.info(there.audio).subtype == "OPUS"


def test_the_teacher_travels_with_an_eighth_of_its_voices(texts: Path, tmp_path: Path) -> None:
    kokoro = tmp_path / "kokoro"
    kokoro.mkdir()
    voice = torch.linspace(-1, 1, 510)[:, None].expand(510, 256).contiguous().half()
    save_file({"af_heart": voice}, kokoro / VOICES)
    save_file({"w": torch.arange(9, dtype=torch.uint8)}, kokoro / WEIGHTS)
    (kokoro / CONFIG).write_text(json.dumps({"vocab": {}}))
    folder = tmp_path / "payload"
    made = make(folder, hours=0.01, kokoro=kokoro, speakers=3, texts=texts)
    assert (made.teacher, made.speakers) == ("kokoro", 3)
    options = ["--teacher", "kokoro", "--kokoro", str(folder / "teacher"), "--device", "cuda"]
    assert teacher_of(folder, "cuda") == options
    assert load_file(folder / "teacher" / WEIGHTS)["w"].tolist() == list(range(9))
    kept = load_file(folder / "teacher" / VOICES)["af_heart"]
    assert len(kept) == 65
    torch.testing.assert_close(row_of(kept, 200), row_of(voice, 200), rtol=0, atol=4e-3)
    assert all(line.spoken != line.text for line in read_script(folder / "script.jsonl"))


def test_mistakes_are_told(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"holds no payload\.json: make a payload"):
        read(tmp_path)
    with pytest.raises(SystemExit):
        main([str(tmp_path / "out"), "--hours", "0", "--texts", str(texts)])
    assert "hours=0.0: give how much synthetic speech" in capsys.readouterr().err
