import json
import os
import signal
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from training.common.run import (
    StopRequest,
    first_difference,
    log_metrics,
    resume_state,
    save_settings,
    save_state,
    wsd_schedule,
)


class TrainingPieces:
    """A model, its optimizer, and something registered, as a run has them."""

    def __init__(self) -> None:
        self.accelerator = Accelerator()
        model = nn.Linear(2, 1)
        self.model, self.optimizer = self.accelerator.prepare(
            model, torch.optim.AdamW(model.parameters(), 0.1)
        )
        self.extra = nn.Linear(1, 1, bias=False)
        self.accelerator.register_for_checkpointing(self.extra)

    def step(self) -> None:
        self.model(torch.ones(1, 2, device=self.accelerator.device)).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            self.extra.weight += 1

    def values(self) -> list[float]:
        return [*self.model.weight.flatten().tolist(), self.extra.weight.item()]


class Unsavable(nn.Module):
    """Ends the save in its midst, when the weights are on disk already."""

    def state_dict(self, *_: object, **__: object) -> dict:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("steps", "warmup", "decay", "expected"),
    [
        (10, 2, 0.4, [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]),
        (4, 4, 1.0, [0.25, 0.5, 0.5, 0.25]),
        (3, 0, 0.0, [1, 1, 1]),
    ],
)
def test_wsd_schedule_by_hand(steps: int, warmup: int, decay: float, expected: list[float]) -> None:
    factors = [wsd_schedule(step, steps=steps, warmup=warmup, decay=decay) for step in range(steps)]
    assert factors == pytest.approx(expected)


def test_metrics_are_one_object_a_line(tmp_path: Path) -> None:
    log_metrics(tmp_path, {"step": 25, "train/loss/mel": 0.5})
    log_metrics(tmp_path, {"step": 50})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 25, "train/loss/mel": 0.5}, {"step": 50}]


def test_without_a_state_training_begins_at_0(tmp_path: Path) -> None:
    parts = TrainingPieces()
    before = parts.values()
    assert resume_state(parts.accelerator, tmp_path) == 0
    assert parts.values() == before


def test_resume_brings_back_weights_optimizer_and_registered(tmp_path: Path) -> None:
    saved = TrainingPieces()
    saved.step()
    save_state(saved.accelerator, tmp_path, 1)
    resumed = TrainingPieces()
    assert resume_state(resumed.accelerator, tmp_path) == 1
    assert resumed.values() == saved.values()
    for parts in (saved, resumed):
        parts.step()
    assert resumed.values() == saved.values()
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_resume_brings_back_the_generators(tmp_path: Path) -> None:
    parts = TrainingPieces()
    save_state(parts.accelerator, tmp_path, 1)
    drawn = torch.rand(3)
    resume_state(parts.accelerator, tmp_path)
    assert torch.equal(torch.rand(3), drawn)


def test_a_save_that_dies_midway_leaves_the_old_state(tmp_path: Path) -> None:
    parts = TrainingPieces()
    parts.step()
    save_state(parts.accelerator, tmp_path, 1)
    kept = parts.values()
    parts.step()
    parts.accelerator.register_for_checkpointing(Unsavable())
    with pytest.raises(KeyboardInterrupt):
        save_state(parts.accelerator, tmp_path, 2)

    resumed = TrainingPieces()
    assert resume_state(resumed.accelerator, tmp_path) == 1
    assert resumed.values() == kept
    resumed.step()
    save_state(resumed.accelerator, tmp_path, 2)  # over what the dead save has left
    again = TrainingPieces()
    assert resume_state(again.accelerator, tmp_path) == 2
    assert again.values() == resumed.values()


def test_saves_that_die_between_renames_leave_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = TrainingPieces()
    parts.step()
    save_state(parts.accelerator, tmp_path, 1)
    kept = parts.values()
    replace = os.replace
    for survived in (0, 1, 0, 0):  # renames until the process dies; the old state is aside from 1 on
        left = survived

        def dying(source: Path, target: Path) -> None:
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            replace(source, target)

        parts.step()
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dying)
            with pytest.raises(KeyboardInterrupt):
                save_state(parts.accelerator, tmp_path, 2)
        resumed = TrainingPieces()
        assert resume_state(resumed.accelerator, tmp_path) == 1
        assert resumed.values() == kept
    save_state(parts.accelerator, tmp_path, 2)
    assert resume_state(resumed.accelerator, tmp_path) == 2
    assert resumed.values() == parts.values()
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_resume_forgets_what_was_logged_after_the_save(tmp_path: Path) -> None:
    parts = TrainingPieces()
    for step in (1, 2, 3):
        log_metrics(tmp_path, {"step": step})
        if step == 2:
            save_state(parts.accelerator, tmp_path, step)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "train/lo')  # the crash
    assert resume_state(parts.accelerator, tmp_path) == 2
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_settings_that_are_fixed_stay(tmp_path: Path) -> None:
    run = tmp_path / "run"
    save_settings(run, {"seed": 1, "steps": 5, "shape": {"dims": [1, 2]}}, ("seed", "shape"))
    save_settings(run, {"seed": 1, "steps": 9, "shape": {"dims": [1, 2]}}, ("seed", "shape"))
    assert json.loads((run / "run.json").read_text())["steps"] == 9
    with pytest.raises(ValueError, match=r"shape\.dims\.1 is 2, not 3; continue it with its own, or begin"):
        save_settings(run, {"seed": 1, "steps": 9, "shape": {"dims": [1, 3]}}, ("seed", "shape"))
    assert json.loads((run / "run.json").read_text())["shape"] == {"dims": [1, 2]}


@pytest.mark.parametrize(
    ("before", "now", "spoken_text"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": {"b": [1, "x"]}}, {"a": {"b": [1, "y"]}}, 'it.a.b.1 is "x", not "y"'),
        ({"a": 1}, {"b": 1}, "it.a is 1, not null"),
        ([1], [1, 2], "it is [1], not [1, 2]"),
    ],
)
def test_the_first_difference_is_named(before: object, now: object, spoken_text: str | None) -> None:
    assert first_difference(before, now, "it") == spoken_text


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_signals_ask_to_stop_and_only_inside(signal_number: signal.Signals) -> None:
    outside: list[int] = []
    before = signal.signal(signal_number, lambda number, _: outside.append(number))
    try:
        with StopRequest() as stop:
            assert not stop
            signal.raise_signal(signal_number)
            assert stop
            assert not outside
        signal.raise_signal(signal_number)
        assert outside == [signal_number]
    finally:
        signal.signal(signal_number, before)
