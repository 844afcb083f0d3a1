"""The official arithmetic of Seed-TTS-Eval, against values worked out by hand from its script."""

import json
import string
from pathlib import Path

import pytest

from eval.metrics import word_errors as scoring

ZHON = (
    "\uff02\uff03\uff04\uff05\uff06\uff07\uff08\uff09\uff0a\uff0b\uff0c\uff0d\uff0f\uff1a\uff1b\uff1c\uff1d"
    "\uff1e\uff20\uff3b\uff3c\uff3d\uff3e\uff3f\uff40\uff5b\uff5c\uff5d\uff5e\uff5f\uff60\uff62\uff63\uff64"
    "\u3000\u3001\u3003\u3008\u3009\u300a\u300b\u300c\u300d\u300e\u300f\u3010\u3011\u3014\u3015\u3016\u3017"
    "\u3018\u3019\u301a\u301b\u301c\u301d\u301e\u301f\u3030\u303e\u303f\u2013\u2014\u2018\u2019\u201b\u201c"
    "\u201d\u201e\u201f\u2026\u2027\ufe4f\ufe51\ufe54\u00b7\uff0e\uff01\uff1f\uff61\u3002"
)


def test_the_deleted_marks_are_those_of_zhon_2_and_ascii_less_the_apostrophe() -> None:
    assert len(ZHON) == 82
    assert set(ZHON + string.punctuation) - {"'"} == scoring.PUNCTUATION


@pytest.mark.parametrize("kept", list("'\u2032\u02bc\u2011\u00a0\u30fb\u2022\uffe5\u00a3\u20ac\uff21\uff11"))
def test_what_looks_like_punctuation_and_stays(kept: str) -> None:
    assert scoring.official_text(f"a{kept}b", "zh") == f"a {kept} b"


@pytest.mark.parametrize(
    ("truth", "hypothesis", "wer", "rates"),
    [
        ("Two words.", "", 1, (0, 1, 0)),
        ("Don't stop: it's 10:45.", " don\u2019t stop it's 1045", 1 / 4, (1 / 4, 0, 0)),
        ("twenty-one and/or", "twenty one and or", 2, (1, 0, 1)),
        ("a - b", "A B!", 0, (0, 0, 0)),
        ("a - - b", "a c", 1 / 2, (1 / 3, 0, 0)),
        (" one two ", "one", 1 / 2, (0, 1 / 4, 0)),
        ("one\u3000two", "one two", 2, (1, 0, 1)),
        ("one\u00a0two", "one two", 2, (1, 0, 1)),
        ("one\u2014two", "onetwo", 0, (0, 0, 0)),
        ("Hello\uff0cworld\uff01", "hello world", 2, (1, 0, 1)),
        ("\uff21\uff22\uff11\uff12", "AB12", 1, (1, 0, 0)),
        ("21 cats", "twenty one cats", 1, (1 / 2, 0, 1 / 2)),
        ("one", "one and two and", 3, (0, 0, 3)),
        (
            "a b",
            "b a",
            1,
            (0, 1 / 2, 1 / 2),
        ),  # a tie, as rapidfuzz breaks it (jiwer before 3: two substitutions)
    ],
)
def test_english_by_hand(truth: str, hypothesis: str, wer: float, rates: tuple[float, ...]) -> None:
    score = scoring.official_wer(truth, hypothesis, "en")
    found = (score.wer, score.substitutions, score.deletions, score.insertions)
    assert found == pytest.approx((wer, *rates), abs=1e-12)


@pytest.mark.parametrize(
    ("truth", "hypothesis", "wer", "rates"),
    [
        ("\u6211\u4eec\u7528App\u3002", "\u6211\u5011\u7528app", 1 / 6, (1 / 6, 0, 0)),
        ("\u8f6f\u4ef6", "\u8edf\u9ad4", 0, (0, 0, 0)),  # by the word; by the character it would be \u4f53
        ("\u8edf\u9ad4", "\u8f6f\u4ef6", 1, (1, 0, 0)),  # the truth is not converted
        ("\u4f60\u597d \u4e16\u754c", "\u4f60\u597d\u4e16", 1 / 4, (0, 1 / 6, 0)),
        ("\u4f60\u597d\u3000\u4e16\u754c", "\u4f60\u597d\u4e16\u754c", 0, (0, 0, 0)),
        ("3.5\u5143", "\u4e09\u70b9\u4e94\u5143", 1, (2 / 3, 0, 1 / 3)),
        ("\u300c\u597d\u300d\u2026\u2026", "", 1, (0, 1, 0)),
    ],
)
def test_chinese_by_hand(truth: str, hypothesis: str, wer: float, rates: tuple[float, ...]) -> None:
    score = scoring.official_wer(truth, hypothesis, "zh")
    found = (score.wer, score.substitutions, score.deletions, score.insertions)
    assert found == pytest.approx((wer, *rates), abs=1e-12)


@pytest.mark.parametrize("truth", ["", "...", " \u2026 - ", "\u3000"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_truth_without_words_is_refused_as_officially(truth: str, language: scoring.Language) -> None:
    with pytest.raises(ValueError, match="nothing to score"):
        scoring.official_wer(truth, "a", language)


def test_modern_errors_know_numbers_spellings_and_widths() -> None:
    english = scoring.modern_errors("Twenty-one colours, don\u2019t.", "21 colors do not", "en")
    assert (english.total, english.words) == (0, 4)
    chinese = scoring.modern_errors(
        "\u6211\u6709\uff12\uff11\u4e2aApp", "\u6211\u6709\u4e8c\u5341\u4e00\u500bapp\u3002", "zh"
    )
    assert (chinese.total, chinese.words) == (0, 9)
    hesitation = scoring.modern_errors("Hmm.", "so it is", "en")
    assert (hesitation.insertions, hesitation.words, hesitation.rate) == (3, 0, None)


def test_pairs_of_a_file_as_lines_or_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [
        ("a - - b", "a c", "en"),
        ("\u8f6f\u4ef6", "\u8edf\u9ad4", "zh"),
        ("...", "a", "en"),
        ("a", "", "en"),
    ]
    names = ("truth", "hypothesis", "language")
    lines = [json.dumps(dict(zip(names, pair, strict=True))) for pair in pairs]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "pairs.tsv").write_text("\n".join("\t".join(pair) for pair in [names, *pairs]), "utf-8")
    assert scoring.main(["--pairs", str(tmp_path / "pairs.jsonl"), "--out", str(tmp_path / "out.jsonl")]) == 0
    assert scoring.main(["--pairs", str(tmp_path / "pairs.tsv")]) == 0
    written = (tmp_path / "out.jsonl").read_text("utf-8")
    assert capsys.readouterr().out == written
    records = [json.loads(line) for line in written.splitlines()]
    assert [record["wer"] for record in records] == [0.5, 0, None, 1]
    assert records[0]["substitutions"] == pytest.approx(1 / 3)
    assert (records[0]["truth"], records[0]["modern"]["words"]) == ("a  b", 2)
    assert "nothing to score" in records[2]["error"]


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"truth": "a", "hypothesis": "b", "language": "de"}', '{"truth": "a"}']
)
def test_a_bad_pair_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    (tmp_path / "pairs.jsonl").write_text(f"\n{line}\n")
    assert scoring.main(["--pairs", str(tmp_path / "pairs.jsonl")]) == 2
    assert "pairs.jsonl:2 is no truth, hypothesis and language" in capsys.readouterr().err
