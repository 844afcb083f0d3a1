"""The parts of every training loop: learning rates, metrics on disk, exact resume, a way to stop."""

import json
import logging
import math
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from accelerate import Accelerator

from tokenizer.io.checkpoint import write_text
from training.common.renamed_options import rename_options

logger = logging.getLogger(__name__)

STEP, SETTINGS = "step.json", "run.json"


def wsd_schedule(step: int, *, steps: int, warmup: int, decay: float) -> float:
    """Return the learning-rate factor of a warmup-stable-decay schedule.

    Args:
        step: Step that is about to be made, from 0.
        steps: Steps of the whole run.
        warmup: Steps over which the factor rises.
        decay: Part of `steps`, at their end, over which it falls to nothing.

    Returns:
        A factor from 0 to 1.
    """
    rise = (step + 1) / max(1, warmup)
    fall = (steps - step) / max(1.0, decay * steps)
    return min(1.0, rise, max(0.0, fall))


def key(*parts: int) -> int:
    """Derive a seed from (seed, step, ...), the same in every process and version of Python."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def log_metrics(run: Path, metrics: dict[str, float]) -> None:
    """Append one line to `metrics.jsonl`."""
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(metrics) + "\n")


def save_state(accelerator: Accelerator, run: Path, step: int) -> None:
    """Save everything that a resume needs as RUN/state, whole or not at all."""
    temporary, final, previous = run / "state.tmp", run / "state", run / "state.old"
    accelerator.save_state(str(temporary))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (temporary / STEP).write_text(json.dumps({"step": step}))
        if final.exists():  # without it, `previous` is all that a killed save has left
            shutil.rmtree(previous, ignore_errors=True)
            os.replace(final, previous)
        os.replace(temporary, final)
        shutil.rmtree(previous, ignore_errors=True)
    accelerator.wait_for_everyone()


def resume_state(accelerator: Accelerator, run: Path) -> int:
    """Load RUN/state where there is one; return the step at which the training continues."""
    folder = _state(run)
    if folder is None:
        return 0
    accelerator.load_state(str(folder))
    step = json.loads((folder / STEP).read_text())["step"]
    if accelerator.is_main_process:
        logger.info("resuming at step %d", step)
        _forget_metrics(run, after=step)
    return step


def has_state(run: Path) -> bool:
    """Return whether there is something to resume."""
    return _state(run) is not None


def _state(run: Path) -> Path | None:
    folders = (run / "state", run / "state.old")
    return next((folder for folder in folders if (folder / STEP).exists()), None)


def save_settings(run: Path, settings: dict[str, Any], fixed: Iterable[str]) -> None:
    """Write RUN/run.json.

    Args:
        run: Folder of the run.
        settings: What decides the run, as JSON.
        fixed: Keys whose values a run keeps to its end.

    Raises:
        ValueError: the run in this folder has other values of `fixed` keys.
    """
    path = run / SETTINGS
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        for name in fixed:
            difference = first_difference(before.get(name), settings[name], name)
            if difference:
                raise ValueError(
                    f"{run} holds a run with other settings: {difference}; continue it with its own, "
                    "or begin another --run"
                )
    run.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(settings, indent=2) + "\n")


def first_difference(before: Any, now: Any, where: str) -> str | None:
    """Describe where two JSON values first differ, such as `shape.model.code_dim is 24, not 256`."""
    if isinstance(before, dict) and isinstance(now, dict):
        pairs = [(before.get(key), now.get(key), f"{where}.{key}") for key in {**before, **now}]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = [(a, b, f"{where}.{i}") for i, (a, b) in enumerate(zip(before, now, strict=True))]
    else:
        return None if before == now else f"{where} is {json.dumps(before)}, not {json.dumps(now)}"
    return next((found for pair in pairs if (found := first_difference(*pair))), None)


def _forget_metrics(run: Path, after: int) -> None:
    """Drop what a crashed run logged after its last save, so that no step is logged twice."""
    path = run / "metrics.jsonl"
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        before = [line for line in lines if _logged_step(line) <= after]
        if before != lines:
            write_text(path, "".join(before))


def _logged_step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:  # the crash cut the line off
        return math.inf


def run_preset(
    train: Callable[[Any], object],
    presets: Mapping[str, Callable[[], Any]],
    argv: list[str] | None,
    about: str,
    renamed: Mapping[str, str],
) -> None:
    """Run the command line of a training: a preset, and options that change it.

    A mistake of the user ends with one line on stderr and exit code 2.

    Args:
        train: The training, called with the options.
        presets: Functions that return the options of each preset; their docstrings are its help.
        argv: The command line without the name of the program; None takes the process's.
        about: The help's first paragraph.
        renamed: New options by old ones, see `training.common.renamed_options`.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("accelerate", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    recipes = {name: (preset.__doc__ or "", preset()) for name, preset in presets.items()}
    try:
        arguments = rename_options(sys.argv[1:] if argv is None else argv, renamed)
        train(tyro.extras.overridable_config_cli(recipes, args=arguments, description=about))
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


class StopRequest:
    """True once the process got SIGTERM or Ctrl-C within its `with`: a loop can then save and leave."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "StopRequest":
        signals = (signal.SIGTERM, signal.SIGINT)
        self.before = {number: signal.signal(number, self._request) for number in signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _request(self, *_: object) -> None:
        self.requested = True

    def __bool__(self) -> bool:
        return self.requested
