from dataclasses import asdict
from pathlib import Path

import pytest

from training.budget import (
    PHASES,
    SHARES,
    STAGES,
    Progress,
    check_shares,
    landing,
    phase_seconds,
    stage_seconds,
)

EVEN: dict[str, float] = {stage: 0.2 for stage in STAGES}


def test_stages_share_what_is_left() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)
    assert [stage_seconds(stage, 1000, {}, SHARES) for stage in STAGES[:1]] == [pytest.approx(200)]
    # corpus took 100 of its 200 seconds: 900 for four
    assert stage_seconds("encoder", 1000, {"corpus": 100}, EVEN) == pytest.approx(225)
    # what the stage itself has used changes nothing, nor what is booked for its phases
    used = {"corpus": 100, "encoder": 200, "encoder/plateau": 200}
    assert stage_seconds("encoder", 1000, used, EVEN) == pytest.approx(225)
    assert stage_seconds("tts", 1000, {"corpus": 400, "codec": 400, "codes": 300}, EVEN) == 0


def test_phases_follow_each_other_within_a_stage() -> None:
    plateau, adversarial, down = PHASES["codec"]
    assert [one.adversarial for one in PHASES["codec"]] == [False, True, True]
    assert phase_seconds("codec", plateau, 100, {}) == pytest.approx(60)
    assert phase_seconds("codec", plateau, 100, {"codec/plateau": 54}) == pytest.approx(6)
    # the plateau overran by 5 seconds, which are missing later
    assert phase_seconds("codec", adversarial, 100, {"codec/plateau": 65}) == pytest.approx(10)
    spent = {"codec/plateau": 65, "codec/adversarial": 10}
    assert phase_seconds("codec", down, 100, spent) == pytest.approx(25)
    assert phase_seconds("codec", down, 100, {"codec/plateau": 200}) == 0


def test_landings_are_planned_by_the_pace() -> None:
    assert landing(1000, pace=10, seconds=100, start_seconds=15) == 1800
    assert landing(1000, pace=0.01, seconds=10, start_seconds=15) == 1001


def test_progress_outlives_a_command(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    progress = Progress.load(path)
    assert progress == Progress()
    progress.add("codec", "plateau", 3.0)
    progress.add("codec", "landing", 1.5)
    progress.add("codes", None, 2.0)
    progress.done.append("corpus")
    progress.plan["codec"] = 100
    progress.save(path)
    assert asdict(Progress.load(path)) == {
        "spent": {"codec": 4.5, "codec/plateau": 3.0, "codec/landing": 1.5, "codes": 2.0},
        "done": ["corpus"],
        "pace": {},
        "plan": {"codec": 100},
    }


def test_a_stage_without_time_is_refused() -> None:
    check_shares(SHARES)
    with pytest.raises(ValueError, match="give each of corpus, encoder, codec, codes, tts more than 0"):
        check_shares({**EVEN, "tts": 0})
