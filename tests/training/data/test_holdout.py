from pathlib import Path

import pytest

from training.data.holdout import main, split, split_sentences
from training.data.manifest import Clip, read_manifest, write_manifest


def clips(speakers: int, source: str = "a") -> list[Clip]:
    """Every speaker says five texts; one is common to all, one is also of the speaker before."""
    result = []
    for i in range(speakers):
        for text in ("We all say this.", f"I am {i}.", f"I am {i - 1}!", f"And {i}? Yes, {i}.", None):
            name = f"{source}{i}-{len(result)}.flac"
            result.append(
                Clip(
                    audio=Path("/audio") / name,
                    text=text,
                    speaker=f"{source}{i}",
                    language="en",
                    duration=1.0,
                    source=source,
                    license="CC0-1.0",
                )
            )
    return result


def test_neither_speakers_nor_sentences_are_shared() -> None:
    train, test = split(clips(50), 0.2, 1000)
    assert 4 <= len({clip.speaker for clip in test}) <= 16
    assert {clip.speaker for clip in train}.isdisjoint(clip.speaker for clip in test)
    test_sentences = {sentence for clip in test for sentence in split_sentences(clip.text or "")}
    assert test_sentences.isdisjoint(
        sentence for clip in train for sentence in split_sentences(clip.text or "")
    )
    assert "we all say this" in test_sentences
    assert all(clip.text for clip in train + test)


def test_a_speaker_is_held_out_whatever_else_there_is() -> None:
    _, single = split(clips(50), 0.2, 1000)
    _, joined = split(clips(50, "b") + clips(50), 0.2, 1000)
    assert [clip for clip in joined if clip.source == "a"] == single


def test_no_source_gives_more_test_clips_than_asked() -> None:
    train, test = split(clips(50) + clips(50, "b"), 0.2, 7)
    assert sorted(clip.source for clip in test) == ["a"] * 7 + ["b"] * 7
    assert {clip.speaker for clip in train}.isdisjoint(
        clip.speaker for clip in split(clips(50), 0.2, 1000)[1]
    )


def test_sentences_are_compared_without_their_writing() -> None:
    assert split_sentences('"Yes," he said. DON\'T!  No...') == ["yes he said", "don t", "no"]
    assert split_sentences("\u4f60\u597d\u3002\u8c22\u8c22\uff01") == ["\u4f60\u597d", "\u8c22\u8c22"]


@pytest.mark.parametrize(("speakers", "cure"), [(0.0, "between 0 and 1"), (1e-9, "hold out more speakers")])
def test_a_split_that_holds_nothing_out_is_refused(speakers: float, cure: str) -> None:
    with pytest.raises(ValueError, match=cure):
        split(clips(5), speakers, 10)


def test_the_command_writes_two_lists(tmp_path: Path) -> None:
    write_manifest(tmp_path / "manifest.jsonl", clips(30))
    main([str(tmp_path / "out"), "--manifests", str(tmp_path / "manifest.jsonl"), "--speakers", "0.3"])
    train, test = (read_manifest(tmp_path / "out" / f"{name}.jsonl") for name in ("train", "test"))
    assert (train, test) == split(clips(30), 0.3, 100)
