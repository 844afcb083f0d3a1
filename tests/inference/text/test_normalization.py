"""Normalization: numbers and signs are spelt out, and the rest is not changed."""

import logging
import sys

import pytest

from inference.text.normalization import language_of, normalize

PLAIN = [
    "",
    "However, that was over now - the Tree gone, the story at an end.",
    "I'd say: don't! It's John's well-known \"book\" (really)...  isn't it?\n\nNo; the U.S. A.M. knows.",
    "\u201cCurly,\u201d she wrote \u2014 \u2018quite\u2019 \u2026 caf\u00e9",
    "\u6ca1\u6709\u6570\u5b57\u7684\u53e5\u5b50\u3002\u5b69\u513f\u201c\u597d\u201d\uff01",
]


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("He has 7 cats and 2.5 kg of rice.", "He has seven cats and two point five kilograms of rice."),
        ("It is -5\u00b0C at 3:45 pm.", "It is negative five degrees Celsius at three forty five PM."),
        ("on January 5th, 2023", "On the fifth of january, twenty twenty three"),
        ("The 3rd, 50% of 20 km.", "The third, fifty percent of twenty kilometers."),
        (
            "Pay $3.50 or \u00a320 or 25\u20ac.",
            "Pay three point five dollars or twenty pounds or twenty five euros.",
        ),
        ("AT&T met Mr. Fox", "AT and T met Mister Fox"),
        ("Number 1,234", "Number one thousand two hundred and thirty four"),
        ("1,000 men", "One thousand men"),
        ("It costs $1,005.06.", "It costs one thousand five dollars and six cents."),
        ("\u00a31,500 and $1,000.00", "One thousand five hundred pounds and one thousand dollars"),
        ("1,234.5 km", "One thousand two hundred and thirty four point five kilometers"),
        ("1,234,567", "One million two hundred thirty four thousand five hundred and sixty seven"),
        ("the 1990s", "The nineteen nineties"),
        ("the 1800s and 2000s", "The eighteen hundreds and two thousands"),
        ("No. 5 is #3, ~9", "Number five is number three, about nine"),
    ],
)
def test_english(text: str, spoken: str) -> None:
    assert normalize(text, "en")[1:] == spoken[1:]
    assert normalize(spoken) == spoken


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        (
            "\u4eca\u5929\u662f2024\u5e745\u670812\u65e5\uff0c\u6c14\u6e2925\u2103\u3002",
            "\u4eca\u5929\u662f\u4e8c\u96f6\u4e8c\u56db\u5e74\u4e94\u6708\u5341\u4e8c\u65e5"
            "\uff0c\u6c14\u6e29\u4e8c\u5341\u4e94\u6444\u6c0f\u5ea6\u3002",
        ),
        ("\u82b1\u4e86\uffe53.50".replace("\uffe5", "\u00a5"), "\u82b1\u4e86\u4e09\u70b9\u4e94\u96f6\u5143"),
        ("\u536050%", "\u5360\u767e\u5206\u4e4b\u4e94\u5341"),
        ("\u73b0\u5728\u662f3:45", "\u73b0\u5728\u662f\u4e09\u70b9\u56db\u5341\u4e94\u5206"),
    ],
)
def test_chinese(text: str, spoken: str) -> None:
    assert normalize(text) == spoken == normalize(spoken)


@pytest.mark.parametrize("text", PLAIN)
def test_what_needs_nothing_stays_as_it_is(text: str, caplog: pytest.LogCaptureFixture) -> None:
    assert normalize(text) == text
    assert not caplog.records


def test_spaces_lines_and_quotes_stay_around_what_changes() -> None:
    text = ' She said:  "I have 5 (or [6])"\n\n\t7\r\nOn 8 July. '
    assert normalize(text) == ' She said:  "I have five (or [six])"\n\n\tseven\r\nOn the eighth of july. '


def test_a_sentence_keeps_its_capital() -> None:
    assert normalize("25 came. We saw 3. Mr. Fox left.") == "Twenty five came. We saw three. Mister Fox left."


def test_a_sentence_keeps_its_full_stop() -> None:
    assert (
        normalize("It is 5 p.m. He left on 8 July. No.")
        == "It is five PM. He left on the eighth of july. No."
    )


@pytest.mark.parametrize(
    "directive", ["[pause 1.2s]", "[pause 500ms]", "[PAUSE 2s]", "[pause: 3]", "[pause 9"]
)
def test_directives_pass_through(directive: str) -> None:
    assert normalize(f"Take 5 {directive}") == f"Take five {directive}"


def test_the_script_tells_the_language() -> None:
    assert language_of("Stra\u00dfe 5") == language_of("5%") == "en"
    assert language_of("\u7b2c5\u7ae0 (chapter 5)") == "zh"
    assert language_of("\u043f\u044f\u0442\u044c") is language_of("\u3044\u3064\u3064") is None
    assert normalize("5 \u043f\u044f\u0442\u044c") == "5 \u043f\u044f\u0442\u044c"
    assert (
        normalize("\u7b2c5\u7ae0\n25%\nPage 5.")
        == "\u7b2c\u4e94\u7ae0\n\u767e\u5206\u4e4b\u4e8c\u5341\u4e94\nPage five."
    )
    assert normalize("25%", "zh") == "\u767e\u5206\u4e4b\u4e8c\u5341\u4e94"


def test_what_the_grammar_refuses_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert (
            normalize("Take 5 \u00b15 and \u00b15, 7 \u00bd.")
            == "Take five \u00b15 and \u00b15, seven one half."
        )
    (record,) = caplog.records
    assert record.getMessage() == "left as written, since it cannot be spelt out: \u00b15, \u00b15,"


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the cure; a text that needs no change works."""
    monkeypatch.setitem(sys.modules, "wetext", None)
    assert normalize(PLAIN[2]) == PLAIN[2]
    with pytest.raises(ValueError, match=r"wetext is missing: pip install wetext, or .* \(--no-normalize\)"):
        normalize("Take 5.")


def test_a_sentence_of_any_length_is_read_in_parts() -> None:
    """Long texts are split after spaces and Chinese marks; digits without any are split anywhere."""
    pytest.importorskip("wetext")
    english = normalize("we saw 5 of them and " * 30)
    assert english.lower() == "we saw five of them and " * 30
    chinese = "\u4ed6\u67095\u53ea\u732b\uff0c" * 60
    assert normalize(chinese) == chinese.replace("5", "\u4e94")
    assert len(normalize("7" * 500)) > 500
