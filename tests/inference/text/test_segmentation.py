"""Segmentation: no text is lost, no segment is empty or too long, and each has its pause."""

import random

import pytest

from inference.text.segmentation import (
    CLAUSE_PAUSE,
    PARAGRAPH_PAUSE,
    SEGMENT_SECONDS,
    SENTENCE_PAUSE,
    WORD_PAUSE,
    expected_seconds,
    split,
)


def texts(text: str, seconds: float = SEGMENT_SECONDS) -> list[str]:
    return [segment.text for segment in split(text, seconds).segments]


def pauses(text: str, seconds: float = SEGMENT_SECONDS) -> list[float]:
    return [segment.pause_seconds for segment in split(text, seconds).segments]


@pytest.mark.parametrize(
    "sentences",
    [
        ["Nobody came so late.", "He slept, at last!", "Did she sleep too?", "Nobody can say."],
        ["Dr. Fox met J. R. Bear.", "They paid 3.50, i.e. less.", "In the U.S. it is 5 p.m. now."],
        ["He said: \u201cWe are all here.\u201d", "Wait... for what?", "Well\u2026 for nothing at all?!"],
        [
            "\u4eca\u5929\u5929\u6c14\u4e0d\u9519\uff01",
            "\u201c\u771f\u7684\u5417\uff1f\u201d\u5979\u95ee\u3002",
        ],
    ],
)
def test_sentences_stay_whole(sentences: list[str]) -> None:
    """Where one sentence fits, it is a segment, and where all fit, there is one segment."""
    space = "" if sentences[0][0] > "\u2fff" else " "
    longest = max(map(expected_seconds, sentences))
    assert texts(space.join(sentences), 1.05 * longest) == sentences
    assert texts(space.join(sentences), 1.05 * len(sentences) * longest) == [space.join(sentences)]
    assert pauses(space.join(sentences), 1.05 * longest) == [SENTENCE_PAUSE] * (len(sentences) - 1) + [0.0]


def test_as_few_segments_as_possible_and_even_ones() -> None:
    """Six of eight equal sentences fit; 6 + 2 would be as few segments as 4 + 4."""
    text = " ".join(["One of them sings."] * 8)
    segments = texts(text, 6.5 * expected_seconds("One of them sings."))
    assert [segment.count("sings") for segment in segments] == [4, 4]


def test_paragraphs_and_lines() -> None:
    """An empty line ends a segment; a single line break is a space, or nothing in Chinese."""
    text = "A heading\n \nThe first\r\n  line goes on.\r\n\r\n* * *\n\n\n\u4f60\n\u597d"
    assert texts(text) == ["A heading", "The first line goes on.", "\u4f60\u597d"]
    assert pauses(text) == [PARAGRAPH_PAUSE, PARAGRAPH_PAUSE, 0.0]


def test_a_long_sentence_is_split_at_the_best_place() -> None:
    marked = "When the rain was over, they went out of the house; nobody had seen them"
    assert texts(marked, expected_seconds(marked) - 0.1) == [
        "When the rain was over,",
        "they went out of the house; nobody had seen them",
    ]
    assert pauses(marked, expected_seconds(marked) - 0.1) == [CLAUSE_PAUSE, 0.0]
    joined = "They left the old house and nobody in the town had seen them"
    assert texts(joined, expected_seconds(joined) - 0.1) == [
        "They left the old house",
        "and nobody in the town had seen them",
    ]
    assert pauses(joined, expected_seconds(joined) - 0.1) == [WORD_PAUSE, 0.0]
    unmarked = "one two three four five six"
    assert texts(unmarked, expected_seconds("one two three") + 0.01) == ["one two three", "four five six"]
    assert texts("abcdefgh", expected_seconds("abcd") + 0.01) == ["abcd", "efgh"]


@pytest.mark.parametrize(
    ("text", "spoken", "silence", "lead"),
    [
        ("Stop [pause 1.2s] here.", ["Stop", "here."], [1.2, 0.0], 0.0),
        ("Stop. [PAUSE 500 ms]\n\nHere.", ["Stop.", "Here."], [0.5, 0.0], 0.0),
        ("[pause 1s] [pause 0.25s] Here.[pause 2s]", ["Here."], [2.0], 1.25),
        ("One[pause 1s] ... [pause 0.5s]two", ["One", "two"], [1.5, 0.0], 0.0),
        ("One. [pause 0s] Two.", ["One.", "Two."], [0.0, 0.0], 0.0),
        ("A [remark] stays.", ["A [remark] stays."], [0.0], 0.0),
    ],
)
def test_directives(text: str, spoken: list[str], silence: list[float], lead: float) -> None:
    segmented = split(text)
    assert [segment.text for segment in segmented.segments] == spoken
    assert [segment.pause_seconds for segment in segmented.segments] == silence
    assert segmented.lead_seconds == lead


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A [pause] b", r"'\[pause\]' is no pause: write \[pause 1\.2s\] or \[pause 500ms\]"),
        ("A [pause 1.2] b", r"'\[pause 1\.2\]' is no pause"),
        ("A [pause: 1s] b", "is no pause"),
        ("A [pause -1s] b", "is no pause"),
        ("A [ pause 1s] b", "is no pause"),
        ("A [pause 1s b", "is no pause"),
        ("A [pause 61s] b", r"'\[pause 61s\]' is too long a pause: 60 s are the most"),
        ("", "has no letter or digit"),
        ("... [pause 1s] \n\n !", "has no letter or digit"),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split(text)
    with pytest.raises(ValueError, match=r"segments of 0 s"):
        split("Fine.", 0)


PROMPT_TEXT = [
    "a",
    "I",
    "No",
    "go,",
    "3.5",
    "U.S.",
    "Dr.",
    "etc.",
    "Wait...",
    "\u2026",
    "-",
    "\u2014",
    "and",
    "which",
]
PROMPT_TEXT += ["'quoted'", '"said', "(so).", "yes!", "no?", "\n", "\n\n"]
STRANGE = [
    "\u4f60\u597d\u3002",
    "\u5929\u6c14\uff0c",
    "\ud55c\uad6d",
    "\u200b",
    "\u00a0",
    "\u3000",
    "\ufeff",
    "\0",
    "x" * 90,
]


@pytest.mark.parametrize("seed", range(60))
def test_no_letter_is_lost(seed: int) -> None:
    """For any text: its letters and digits are in order, no segment is silent or too long."""
    rng = random.Random(seed)
    words = rng.choices([*PROMPT_TEXT, *STRANGE] if seed % 2 else PROMPT_TEXT, k=rng.randrange(1, 120))
    text = rng.choice([" ", "  "]).join([*words, "end"])
    seconds = rng.choice([0.5, 2.0, 10.0])
    segments = texts(text, seconds)
    assert spoken("".join(segments)) == spoken(text)
    assert all(spoken(segment) and segment == segment.strip() for segment in segments)
    assert max(map(expected_seconds, segments)) <= seconds + expected_seconds("....\"')(\u4f60")
    if seconds > 1 and not seed % 2:
        assert list(filter(spoken, " ".join(segments).split())) == list(filter(spoken, text.split()))


def spoken(text: str) -> str:
    return "".join(filter(str.isalnum, text))
