import json
import tarfile
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile

from training.data.importers import csv_file, emilia, jsonl, libritts, ljspeech
from training.data.manifest import Clip


def sound(path: Path, seconds: float = 0.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(round(seconds * 8000)), 8000)
    return path


def known(clip: Clip) -> tuple:
    return clip.member or clip.audio.name, clip.text, clip.speaker, clip.language, clip.duration, clip.source


RECORD = {"text": " Hallo. ", "language": "DE", "speaker": "DE_B0_S1", "duration": 2.5, "dnsmos": 3.1}


def test_emilia_with_a_file_of_records_beside_each_folder(tmp_path: Path) -> None:
    rows = [{**RECORD, "wav": "B0/a.mp3"}, {**RECORD, "wav": "b.mp3"}, {**RECORD, "wav": "B0/c.mp3"}]
    (tmp_path / "DE" / "B0").mkdir(parents=True)
    for name in ("a.mp3", "b.mp3"):
        (tmp_path / "DE" / "B0" / name).touch()
    (tmp_path / "DE" / "B0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{nope\n")
    missed: Counter[str] = Counter()
    clips = list(emilia(tmp_path, missed))
    expected = ("Hallo.", "emilia/DE_B0_S1", "de", 2.5, "emilia")
    assert [known(clip) for clip in clips] == [(name, *expected) for name in ("a.mp3", "b.mp3", "c.mp3")]
    assert [clip.audio.exists() for clip in clips] == [True, True, False]
    assert {clip.license for clip in clips} == {"CC-BY-NC-4.0"}
    assert missed == {"B0.jsonl: broken record": 1}


def test_emilia_in_pairs_loose_and_in_archives(tmp_path: Path) -> None:
    sound(tmp_path / "loose" / "a.wav")
    (tmp_path / "loose" / "a.json").write_text(json.dumps({**RECORD, "duration": None}))
    (tmp_path / "loose" / "b.json").write_text("{nope")
    wav = sound(tmp_path / "x.wav").read_bytes()
    unmeasured = {name: value for name, value in RECORD.items() if name != "duration"}
    contents = {
        **{"k/1.mp3": b"sound", "k/1.json": json.dumps(RECORD).encode()},
        **{"k/2.json": json.dumps(unmeasured).encode(), "k/2.wav": wav, "k/3.mp3": b"alone"},
    }
    with tarfile.open(tmp_path / "DE-B000000.tar", "w") as tar:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, BytesIO(data))
    missed: Counter[str] = Counter()
    expected = ("Hallo.", "emilia/DE_B0_S1", "de")
    assert [known(clip) for clip in emilia(tmp_path, missed)] == [
        ("k/1.mp3", *expected, 2.5, "emilia"),
        ("k/2.wav", *expected, 0.5, "emilia"),
        ("a.wav", *expected, 0.5, "emilia"),
    ]
    assert missed == {"b.json: broken record": 1, "DE-B000000.tar: half of a pair": 1}


def test_libritts(tmp_path: Path) -> None:
    sound(tmp_path / "dev-clean" / "84" / "121123" / "84_121123_000007_000001.wav")
    texts = tmp_path / "dev-clean" / "84" / "121123"
    (texts / "84_121123_000007_000001.normalized.txt").write_text("Maximilian.\n")
    (texts / "84_121123_000007_000001.original.txt").write_text("Maximilian!")
    (texts / "84_121123_000008_000000.normalized.txt").write_text("Gone.")
    missed: Counter[str] = Counter()
    assert [known(clip) for clip in libritts(tmp_path, missed)] == [
        ("84_121123_000007_000001.wav", "Maximilian.", "libritts/84", "en", 0.5, "libritts")
    ]
    assert missed == {"libritts: left out, duration unknown": 1}


def test_ljspeech(tmp_path: Path) -> None:
    sound(tmp_path / "wavs" / "LJ001-0001.wav")
    (tmp_path / "metadata.csv").write_text('LJ001-0001|In "1900".|In "nineteen hundred".\n')
    (clip,) = ljspeech(tmp_path, Counter())
    assert known(clip) == (
        *("LJ001-0001.wav", 'In "nineteen hundred".', "ljspeech/lj", "en", 0.5, "ljspeech"),
    )
    assert clip.license == "public domain"


@pytest.mark.parametrize(
    "lines",
    [
        "a.wav|Hello, you.|tom|en\n",
        "audio_file|text|speaker\na.wav|Hello, you.|tom\n",
        "text\tpath\tspk\nHello, you.\ta.wav\ttom\n",
        '\ufeffaudio,text,speaker,duration\na.wav,"Hello, you.",tom,\n',
        'a.wav,"Hello, you.",tom\n',
    ],
)
def test_csv_with_and_without_names(tmp_path: Path, lines: str) -> None:
    sound(tmp_path / "a.wav")
    (tmp_path / "mine.csv").write_text(lines, encoding="utf-8")
    (clip,) = csv_file(tmp_path / "mine.csv", Counter())
    assert known(clip) == ("a.wav", "Hello, you.", "tom", "en", 0.5, "mine")
    assert clip.license == "unknown"


def test_jsonl_with_little_and_with_much(tmp_path: Path) -> None:
    audio = sound(tmp_path / "a.wav")
    rows = [
        {"audio": "a.wav", "text": "今天天气很好。"},
        {"audio": str(audio), "text": "Hi.", "language": "fr", "speaker": 7, "duration": 3, "license": "MIT"},
        {"text": "of nothing"},
        {"audio": "gone.wav", "text": "gone", "source": "lost"},
    ]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    missed: Counter[str] = Counter()
    clips = list(jsonl(tmp_path / "b.jsonl", missed))
    assert [known(clip) for clip in clips] == [
        ("a.wav", "今天天气很好。", "", "zh", 0.5, "b"),
        ("a.wav", "Hi.", "7", "fr", 3.0, "b"),
    ]
    assert [clip.license for clip in clips] == ["unknown", "MIT"]
    assert missed == {"b.jsonl: no audio": 1, "lost: left out, duration unknown": 1}
