"""Screening, intervals and paired comparison by hand."""

import json
import math
import threading
from pathlib import Path

import pytest

from eval.mushra.__main__ import main
from eval.mushra.analysis import Rating, RatingsFile, analyse, interval, read_ratings, screen
from eval.mushra.trials import LOW, MID, REFERENCE


def rating(listener: str, trial: int, system: float, reference: float = 100, mid: float = 50) -> Rating:
    scores = {REFERENCE: reference, LOW: 20.0, MID: mid, "sys": system}
    return Rating(
        listener=listener, trial=f"{trial}.wav", seed=0, order=list(scores), scores=scores, seconds=9.0
    )


def trials(listener: str, count: int, **scores: float) -> list[Rating]:
    return [rating(listener, trial, 60) for trial in range(20 - count)] + [
        rating(listener, trial, 60, **scores) for trial in range(20 - count, 20)
    ]


def test_fifteen_percent_are_forgiven_and_more_are_not() -> None:
    ratings = [*trials("good", 0), *trials("tired", 3, reference=89), *trials("deaf", 4, reference=89)]
    ratings += [*trials("kind", 3, mid=91), *trials("bats", 4, mid=91), *trials("edge", 20, mid=90)]
    ratings += trials("just", 20, reference=90)
    assert screen(ratings) == {
        "bats": "anchor 7 kHz above 90 in 4 of 20 trials",
        "deaf": "hidden reference below 90 in 4 of 20 trials",
    }


def test_an_interval_by_hand() -> None:
    assert interval([1.0]) is None
    low, high = interval([1.0, 2.0, 3.0]) or (0, 0)
    half = 4.302653 * 1 / math.sqrt(3)  # t of 2 degrees of freedom
    assert (low, high) == (pytest.approx(2 - half, abs=1e-5), pytest.approx(2 + half, abs=1e-5))


def test_means_are_of_listeners_and_differences_of_pairs() -> None:
    ratings = [rating("a", 0, 60), rating("a", 1, 70), rating("b", 0, 75), rating("c", 0, 70)]
    ratings += [rating("out", trial, 0, reference=10) for trial in range(3)]
    means, pairs, left_out = analyse(ratings)
    assert means.title == "MUSHRA: 3 listeners, 4 ratings of 2 trials"
    rows = {row[0]: row[1:] for row in means.rows}
    assert rows["sys"][0] == pytest.approx(70) and rows[REFERENCE][0] == 100
    half = 4.302653 * 5 / math.sqrt(3)
    assert rows["sys"][1:] == [pytest.approx(70 - half, abs=1e-4), pytest.approx(70 + half, abs=1e-4)]
    assert [row[0] for row in means.rows] == [REFERENCE, "sys", MID, LOW]
    assert left_out.title == "Left out: 1" and left_out.rows[0][0] == "out"
    by_pair = {row[0]: row[1:] for row in pairs.rows}
    difference = by_pair[f"{REFERENCE} - sys"]
    # t = 30 / (5 / sqrt(3)) = 10.392, two-sided with 2 degrees of freedom: p = 0.00913; Holm over 3 pairs:
    # the others are sys - mid (20: p = 0.0202) and sys - low (50: p = 0.00331).
    assert difference[:3] == [
        pytest.approx(30),
        pytest.approx(30 - half, abs=1e-4),
        pytest.approx(30 + half, abs=1e-4),
    ]
    assert difference[3] == pytest.approx(2 * 0.00913, rel=0.01)
    assert by_pair[f"sys - {LOW}"][3] == pytest.approx(3 * 0.00331, rel=0.01)
    assert by_pair[f"sys - {MID}"][3] == pytest.approx(0.0202, rel=0.01)
    assert by_pair[f"{REFERENCE} - {LOW}"][3] is None, "all agree: there is nothing to test"


def test_one_listener_has_means_and_no_intervals() -> None:
    means, pairs, _ = analyse([rating("a", 0, 60), rating("a", 1, 70)])
    assert {tuple(row[2:]) for row in means.rows} == {(None, None)}
    assert {tuple(row[2:]) for row in pairs.rows} == {(None, None, None)}


def test_ratings_of_many_threads_are_whole_and_none_is_kept_twice(tmp_path: Path) -> None:
    path = tmp_path / "ratings.jsonl"
    ratings = RatingsFile(path)
    submitted = [rating(f"listener {n % 5}", n // 10, n) for n in range(50)]
    threads = [threading.Thread(target=ratings.append, args=[one]) for one in submitted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = read_ratings(path)
    assert {(r.listener, r.trial) for r in kept} == {(r.listener, r.trial) for r in submitted}
    assert RatingsFile(path).rated("listener 3") == {f"{n}.wav" for n in range(5)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"ratings.jsonl:2 is no rating"),
        ('{"listener": "a"}', r"ratings.jsonl:2 is no rating"),
        ("again", r"ratings.jsonl:2 rates 0.wav a second time"),
        ("other", r"ratings.jsonl:2 rates other conditions"),
        ("beyond", r"ratings.jsonl:2 rates other conditions, or beyond 0 to 100"),
    ],
)
def test_bad_ratings_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    path = tmp_path / "ratings.jsonl"
    RatingsFile(path).append(rating("a", 0, 60))
    fields = json.loads(path.read_text())
    if line == "other":
        line = json.dumps({**fields, "trial": "1.wav", "scores": {"x": 1}})
    elif line == "beyond":
        line = json.dumps({**fields, "trial": "1.wav", "scores": {**fields["scores"], "sys": 101}})
    with path.open("a") as file:
        file.write(path.read_text() if line == "again" else line + "\n")
    assert main(["--analyse", str(path)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and error.startswith("eval.mushra: ")
    with pytest.raises(ValueError, match=message):
        read_ratings(path)


def test_the_analysis_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "ratings.jsonl", tmp_path / "mushra.json"
    ratings = RatingsFile(path)
    for one in (rating("a", 0, 60), rating("b", 0, 80)):
        ratings.append(one)
    assert main(["--analyse", str(path), "--out", str(out)]) == 0
    assert "| sys | 70.000 |" in capsys.readouterr().out
    results = json.loads(out.read_text())
    assert [table["title"] for table in results["tables"]][1:] == ["Paired comparison", "Left out: 0"]


def test_nobody_left_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ratings.jsonl"
    RatingsFile(path).append(rating("a", 0, 60, reference=0))
    assert main(["--analyse", str(path)]) == 2
    assert "no listener is left after screening: hidden reference" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give the folders of a test, or --analyse"),
        (["a", "b"], "name the file that ratings are kept in with --out"),
        (["a", "b/x", "c/x", "--out", "r.jsonl"], "two systems have one name"),
        (["a", "b", "--out", "no/r.jsonl"], "there is no folder no"),
    ],
)
def test_mistakes_on_the_command_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err
