"""What every training loop needs: the learning-rate schedule, metrics on disk, and exact resume."""

import json
import logging
import os
import shutil
import signal
from pathlib import Path

from accelerate import Accelerator

logger = logging.getLogger(__name__)

STEP = "step.json"


def trapezoid(step: int, *, steps: int, warmup: int, decay: float) -> float:
    """Learning-rate factor: a rise over `warmup` steps, a plateau, a fall over the last `decay` of them."""
    rise = (step + 1) / max(1, warmup)
    fall = (steps - step) / max(1.0, decay * steps)
    return min(1.0, rise, max(0.0, fall))


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
    for folder in (run / "state", run / "state.old"):
        if (folder / STEP).exists():
            accelerator.load_state(str(folder))
            step = json.loads((folder / STEP).read_text())["step"]
            logger.info("resuming at step %d", step)
            return step
    return 0


class StopRequest:
    """True once the process was asked to end (SIGTERM) within its `with`: a loop can then save and leave."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "StopRequest":
        self.before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self.before)

    def _ask(self, *_: object) -> None:
        self.asked = True

    def __bool__(self) -> bool:
        return self.asked
