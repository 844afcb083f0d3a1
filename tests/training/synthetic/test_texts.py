from pathlib import Path

import pytest

from training.synthetic.texts import sentences, speakable, utterances


@pytest.mark.parametrize(
    ("example", "sentence"),
    [
        ("the girl  pouted loudly today", "The girl pouted loudly today."),
        ("How does she look?", "How does she look?"),
        ("they stayed on, happily;", "They stayed on, happily."),
        ("born in 1990 in Rome", None),
        ("the U.S. team won today", None),
        ("the NATO summit went well", None),
        ("too short now", None),
        ("na\u00efve people believe it all", None),
    ],
)
def test_speakable(example: str, sentence: str | None) -> None:
    assert speakable(example, range(4, 21)) == sentence


def test_wordnet_definitions_and_examples_are_read_from_the_glosses(tmp_path: Path) -> None:
    for part in ("noun", "verb", "adj", "adv"):
        (tmp_path / f"data.{part}").write_text(
            f'00001740 29 v 01 breathe 0 000 | draw {part} into lungs; "people {part} when they breathe"; '
            f'"a {part} 2"\n'
        )
    assert sentences(tmp_path, range(4, 21)) == [
        text
        for part in ("noun", "verb", "adj", "adv")
        for text in (f"Draw {part} into lungs.", f"People {part} when they breathe.")
    ]


def test_missing_wordnet_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="apt-get install wordnet-base"):
        sentences(tmp_path / "nowhere", range(4, 21))


def test_texts_without_sentences_are_refused(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("1 2 3\n")
    with pytest.raises(ValueError, match=r"texts\.txt holds no sentence"):
        next(utterances(tmp_path / "texts.txt", seed=0))
