import json
from dataclasses import replace
from pathlib import Path

import pytest

from training.data.manifest import Clip, read_manifest, write_manifest


def clip(audio: Path, **changes) -> Clip:
    known = Clip(
        audio=audio, text="Grüße.", speaker="a", language="de", duration=1.5, source="s", license="CC0"
    )
    return replace(known, **changes)


def test_round_trip_keeps_clips_and_writes_relative_paths(tmp_path: Path) -> None:
    clips = [clip(tmp_path / "audio" / "x.flac"), clip(tmp_path.parent / "y.flac", text=None, speaker="b")]
    path = tmp_path / "manifest.jsonl"
    write_manifest(path, clips)
    assert read_manifest(path) == clips
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows[0]["audio"] == "audio/x.flac"
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.jsonl"]


def test_moved_folder_still_reads(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    write_manifest(tmp_path / "old" / "manifest.jsonl", [clip(tmp_path / "old" / "x.flac")])
    (tmp_path / "old").rename(tmp_path / "new")
    assert read_manifest(tmp_path / "new" / "manifest.jsonl")[0].audio == tmp_path / "new" / "x.flac"


def test_sound_needs_no_speaker_and_a_caption_says_that_it_is_one(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    rain = '{"audio": "x.wav", "duration": 2}\n'
    path.write_text(rain + '{"audio": "y.wav", "duration": 2, "text": "A dog barks.", "task": "caption"}\n')
    first, second = read_manifest(path)
    assert (first.text, first.speaker) == (None, "")
    assert (second.text, second.speaker, second.task) == ("A dog barks.", "", "caption")
    write_manifest(tmp_path / "again.jsonl", [first, second])
    assert read_manifest(tmp_path / "again.jsonl") == [first, second]


def test_other_columns_are_ignored_and_unknown_text_is_none(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text('{"audio": "x.wav", "text": null, "speaker": "a", "duration": 2, "age": 30}\n\n')
    assert read_manifest(path) == [
        Clip(
            audio=tmp_path / "x.wav",
            text=None,
            speaker="a",
            language="en",
            duration=2.0,
            source="unknown",
            license="unknown",
        )
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{nope", "manifest.jsonl:2 is not JSON"),
        (
            '{"audio": "x.wav", "text": "t", "duration": 1, "task": "guess"}',
            "manifest.jsonl:2 has task 'guess'; choose one of asr, multi_speaker_asr, caption",
        ),
        ("[1]", "manifest.jsonl:2 holds a JSON list"),
        ('{"audio": "x.wav", "text": "t"}', "manifest.jsonl:2 lacks duration, speaker"),
        ('{"audio": "x.wav", "speaker": "a", "duration": "long"}', "manifest.jsonl:2 has duration 'long'"),
        ('{"audio": "x.wav", "speaker": "a", "duration": 0}', "manifest.jsonl:2 has duration 0"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text('{"audio": "x.wav", "speaker": "a", "duration": 1}\n' + line, encoding="utf-8")
    with pytest.raises(ValueError, match=complaint):
        read_manifest(path)


def test_a_failed_write_leaves_the_old_manifest(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    write_manifest(path, [clip(tmp_path / "x.flac")])

    def broken():
        yield clip(tmp_path / "y.flac")
        raise RuntimeError("the source ended early")

    with pytest.raises(RuntimeError):
        write_manifest(path, broken())
    assert [kept.audio.name for kept in read_manifest(path)] == ["x.flac"]
    assert list(tmp_path.iterdir()) == [path]
