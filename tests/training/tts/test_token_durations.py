import numpy as np
import pytest

from training.tts.token_durations import MIN_FRAMES, usual_frames


def test_lengths_are_found_from_whole_utterances() -> None:
    """Five tokens of known length; the fast speaker takes half the time for each."""
    draw, true = np.random.default_rng(0), np.array([0.5, 1.0, 1.5, 2.0, 4.0])
    ids = [draw.integers(0, 5, draw.integers(5, 30)).tolist() for _ in range(4000)]
    speakers = ["slow" if i % 2 else "fast" for i in range(4000)]
    frames = [
        round(true[one].sum() * (1 if who == "slow" else 0.5)) for one, who in zip(ids, speakers, strict=True)
    ]
    found = np.array(usual_frames(ids, frames, speakers, 5))
    assert found / found.mean() == pytest.approx(true / true.mean(), rel=0.05)
    assert found @ np.bincount(np.concatenate(ids)) == pytest.approx(sum(frames), rel=0.02)


def test_rare_tokens_are_as_long_as_the_others() -> None:
    ids = [[0, 0, 1, 1]] * 500 + [[0, 2]]
    found = usual_frames(ids, [8] * 500 + [40], [""] * 501, 4)
    assert found[3] == pytest.approx(2.0, rel=0.05), "never seen"
    assert found[2] < 4, "seen once, in an odd place"


def test_nothing_takes_no_time() -> None:
    ids = [[0] * 10, [0] * 10 + [1] * 10] * 200
    assert usual_frames(ids, [20, 20] * 200, [""] * 400, 2)[1] == MIN_FRAMES


def test_texts_may_be_empty() -> None:
    assert usual_frames([[], [0, 1]], [10, 4], ["", ""], 2) == pytest.approx([7.0, 7.0], rel=0.5)
