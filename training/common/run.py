"""What every training loop needs: learning rates, metrics on disk, exact resume, a way to stop."""

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

logger = logging.getLogger(__name__)

STEP, SETTINGS = "step.json", "run.json"


def trapezoid(step: int, *, steps: int, warmup: int, decay: float) -> float:
    """Learning-rate factor: a rise over `warmup` steps, a plateau, a fall over the last `decay` of them."""
    rise = (step + 1) / max(1, warmup)
    fall = (steps - step) / max(1.0, decay * steps)
    return min(1.0, rise, max(0.0, fall))


def key(*parts: int) -> int:
    """A seed that is a function of (seed, step, ...), the same in every process and version of Python."""
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
    """Load RUN/state when there is one; return the step at which training goes on."""
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
    """Whether there is something to resume."""
    return _state(run) is not None


def _state(run: Path) -> Path | None:
    folders = (run / "state", run / "state.old")
    return next((folder for folder in folders if (folder / STEP).exists()), None)


def keep_settings(run: Path, settings: dict[str, Any], fixed: Iterable[str]) -> None:
    """Write RUN/run.json; raise ValueError where the run in this folder has other values of `fixed` keys."""
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
    """Where two JSON values differ first, and how: `shape.model.code_dim is 24, not 256`."""
    if isinstance(before, dict) and isinstance(now, dict):
        pairs = [(before.get(key), now.get(key), f"{where}.{key}") for key in {**before, **now}]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = [(one, other, f"{where}.{i}") for i, (one, other) in enumerate(zip(before, now, strict=True))]
    else:
        return None if before == now else f"{where} is {json.dumps(before)}, not {json.dumps(now)}"
    return next((text for pair in pairs if (text := first_difference(*pair))), None)


def _forget_metrics(run: Path, after: int) -> None:
    """Drop what a crashed run logged after its last save, so that no step is there twice."""
    path = run / "metrics.jsonl"
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if _logged_step(line) <= after]
        if kept != lines:
            write_text(path, "".join(kept))


def _logged_step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:  # the crash came in the midst of it
        return math.inf


def run_preset(
    train: Callable[[Any], object],
    presets: Mapping[str, Callable[[], Any]],
    argv: list[str] | None,
    about: str,
) -> None:
    """The command line of a training: a preset and what is changed of it. A mistake of the user ends with
    one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("accelerate", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    recipes = {name: (preset.__doc__ or "", preset()) for name, preset in presets.items()}
    try:
        train(tyro.extras.overridable_config_cli(recipes, args=argv, description=about))
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


class StopRequest:
    """True once the process was asked to end (SIGTERM, Ctrl-C) within its `with`: a loop can then save and
    leave."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "StopRequest":
        self.before = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, *_: object) -> None:
        self.asked = True

    def __bool__(self) -> bool:
        return self.asked
