"""Means, intervals and tables, by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from eval.metrics.word_errors import Errors
from eval.seed_tts import report
from eval.seed_tts.scorer import Score


def score(utt: str, seed: int, wrong: int, words: int = 4, depth: int = 2, similarity: float = 0.5) -> Score:
    errors = Errors(substitutions=wrong, deletions=0, insertions=0, words=words)
    return Score(
        depth=depth,
        seed=seed,
        utt=utt,
        target="",
        transcript="",
        wer=wrong / words,
        substitutions=wrong / words,
        deletions=0.0,
        insertions=0.0,
        official=errors,
        modern=Errors(substitutions=0, deletions=wrong, insertions=0, words=2 * words),
        similarity=similarity,
        seconds=1.5,
        stop="end" if seed == 1 else "limit",
        wav_sha256="",
        error=None,
    )


def results(name: str, scores: list[Score], official: bool = False) -> dict:
    model = {"name": "a model", "official": official, "sha256": {}}
    return {
        "language": "en",
        "meta": {"name": "meta.lst", "lines": 2, "sha256": "0123456789"},
        "system": {"name": name},
        "metrics": {"recognizer": model, "similarity": model},
        "rows": report.summarize(scores, {2: 250.0, 3: 375.0}),
    }


def test_macro_counts_utterances_and_micro_counts_words() -> None:
    scores = [score("a", 1, 1, 1), score("b", 1, 0, 9), score("a", 2, 0, 1), score("b", 2, 9, 9)]
    (row,) = report.summarize(scores, {2: 250.0})
    assert (row["depth"], row["bitrate"], row["takes"], row["missing"]) == (2, 250, 4, 0)
    assert row["wer"]["mean"] == row["substitutions"] == 0.5
    assert row["wer_official_micro"] == 10 / 20
    assert row["wer_modern_micro"] == 10 / 40
    assert row["stops"] == {"end": 2, "limit": 2}
    assert row["audio_seconds"] == 6


def test_intervals_by_hand() -> None:
    found = report.estimate(np.array([[0.0, 1.0], [1.0, 1.0]]))
    half = 12.7062047364 * 0.25  # t of one degree of freedom; the means of the seeds are 0.5 and 1
    assert (found["mean"], found["by_seed"]) == (0.75, [0.5, 1.0])
    assert found["over_seeds"] == pytest.approx([0.75 - half, 0.75 + half])
    assert found["over_utterances"] == [0.5, 1.0]  # means of two draws of 0.5 and 1
    one_seed = report.estimate(np.arange(1000.0)[None])
    assert one_seed["over_seeds"] is None
    error = 1.96 * np.arange(1000).std() / 1000**0.5
    assert one_seed["over_utterances"] == pytest.approx([499.5 - error, 499.5 + error], abs=2)


def test_runs_side_by_side_as_tables_picture_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, official in (("ours", False), ("theirs", True)):
        scores = [score(utt, 1, 1, depth=depth) for depth in (2, 3) for utt in ("a", "b")]
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(results(name, scores, official)))
        (tmp_path / name / "run.json").write_text(json.dumps({"rtf": None if official else {"2": 0.125}}))
    picture, out = tmp_path / "picture.png", tmp_path / "out.json"
    runs = [str(tmp_path / name) for name in ("ours", "theirs")]
    assert report.main([*runs, "--plot", str(picture), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(
        "similarity: a model (not the official one). Not comparable to published numbers."
    )
    assert lines[4] == (
        "| ours | 2 | 250 | 2 | 0 | 25.000 [25.000, 25.000] | 25.0 / 0.0 / 0.0 | 25.00 | 12.50 "
        "| 0.500 [0.500, 0.500] | end 2 | 0.12 |"
    )
    assert lines[5].startswith("| ours | 3 ") and lines[5].endswith("| - |")
    assert lines[7].endswith("similarity: a model. The metric models are the official ones.")
    assert picture.read_bytes().startswith(b"\x89PNG")
    written = json.loads(out.read_text())
    assert written["figures"] == ["picture.png"]
    assert [len(table["rows"]) for table in written["tables"]] == [2, 2]
    assert [table["title"] for table in written["tables"]] == [lines[0], lines[7]]
    assert all(len(row) == len(table["head"]) for table in written["tables"] for row in table["rows"])
    assert written["runs"][0]["rows"][0]["wer"]["by_seed"] == [0.25]
    assert report.main([str(tmp_path)]) == 2
    assert "holds no results" in capsys.readouterr().err


def test_results_alone_tell_no_speed() -> None:
    text = report.markdown([results("ours", [score("a", 1, 1), score("a", 2, 1)])])
    assert "RTF" not in text and text.count("\n") == 4
