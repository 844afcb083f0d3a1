from itertools import islice
from pathlib import Path

import pytest

from training.script import as_written, deal, read_script, write_script
from training.speakers import Speaker, hibari_speakers, kokoro_speakers
from training.texts import utterances


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("the cat sat on the mat\nA long road leads over the hill.\ngood morning\n")
    return path


def test_lines_depend_on_the_seed_and_go_to_all_speakers(texts: Path) -> None:
    def lines(seed: int) -> list:
        return list(islice(deal(utterances(texts, seed), hibari_speakers(41, 0), as_written, seed), 82))

    first = lines(0)
    assert first == lines(0) != lines(1)
    names = [line.speaker.name for line in first]
    assert (
        sorted(names[:41]) == sorted(names[41:]) == sorted(speaker.name for speaker in hibari_speakers(41, 0))
    )
    assert {line.text for line in first} >= {"Good morning.", "The cat sat on the mat."}
    assert len({line.key for line in first}) == 82


def test_spelling_is_the_speakers(texts: Path, tmp_path: Path) -> None:
    def spell(text: str, speaker: Speaker) -> str:
        return f"{speaker.british} {text}"

    lines = list(islice(deal(utterances(texts, 0), kokoro_speakers(7, 0), spell, 0), 20))
    assert all(line.spoken == f"{line.speaker.british} {line.text}" for line in lines)
    write_script(tmp_path / "script.jsonl", lines)
    assert list(read_script(tmp_path / "script.jsonl")) == lines


@pytest.mark.parametrize("row", ["no JSON", "{}", '{"text": "a", "spoken": "a", "speaker": "x", "seed": 1}'])
def test_what_is_no_line_is_refused_by_its_number(texts: Path, tmp_path: Path, row: str) -> None:
    path = tmp_path / "script.jsonl"
    write_script(path, islice(deal(utterances(texts, 0), hibari_speakers(41, 0), as_written, 0), 3))
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(ValueError, match=r"script\.jsonl:4 is no line of a script"):
        list(read_script(path))
