from itertools import islice
from pathlib import Path

import pytest

from training.synthetic.script import as_written, deal
from training.synthetic.speakers import Speaker, hibari_speakers, kokoro_speakers
from training.synthetic.texts import utterances


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


def test_spelling_is_the_speakers(texts: Path) -> None:
    def spell(text: str, speaker: Speaker) -> str:
        return f"{speaker.british} {text}"

    lines = list(islice(deal(utterances(texts, 0), kokoro_speakers(7, 0), spell, 0), 20))
    assert all(line.spoken == f"{line.speaker.british} {line.text}" for line in lines)
