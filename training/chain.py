"""The default voice's chain of stages: each a command that is started, watched, and stopped in time."""

import json
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from tokenizer.checkpoint import write_text
from training import budget, pieces, stages
from training.budget import PHASES, Progress
from training.run import STEP, StopRequest
from training.stages import OPEN_END, Setting

logger = logging.getLogger(__name__)

PROGRESS, LOG, STAGE = "progress.json", "log.txt", "stage.json"
POLL, STATUS = 0.5, 60.0
"""Seconds between two looks at a stage, and between two lines about it."""
SAVING = 20.0
"""Seconds before the command's end at which stages are asked to save."""


class OutOfTime(Exception):
    """The command's time is over, or it was asked to stop; what there is has been saved."""


class Chain:
    """One command's part of the work in OUT."""

    def __init__(
        self, setting: Setting, *, seconds: float, shares: dict[str, float], until: float, stop: StopRequest
    ) -> None:
        self.setting, self.seconds, self.shares, self.until, self.stop = setting, seconds, shares, until, stop
        self.progress = Progress.load(setting.out / PROGRESS)
        self.first_line = 20.0
        """Seconds from a training's start to its first line of metrics, as last seen."""

    def run(self) -> Path:
        """All stages that are not done; the bundle. Raises OutOfTime."""
        self._stage("corpus", self._corpus)
        self._stage("encoder", lambda: self._train("encoder"))
        self._stage("codec", lambda: self._train("codec"))
        self._stage("codes", self._codes)
        self._stage("tts", lambda: self._train("tts"))
        return self._bundle()

    def skip(self, stage: str, *, finished: bool) -> None:
        """Leave out what a tokenizer that was brought along has behind it: `stage` is where it comes from."""
        for one in ("encoder", "codec"):
            before = budget.STAGES.index(one) < budget.STAGES.index(stage)
            if (before or (finished and one == stage)) and one not in self.progress.done:
                self.progress.done.append(one)

    @property
    def tokenizer(self) -> Path:
        """The trained tokenizer: this run's, or the one that was brought along."""
        own = self.setting.run("codec") / "model"
        return own if own.exists() or self.setting.codec is None else self.setting.codec

    def _stage(self, stage: str, work: Callable[[], None]) -> None:
        if stage in self.progress.done:
            return
        logger.info("%s: %.0f s", stage, self._left(stage))
        work()
        self._finish(stage)

    def _corpus(self) -> None:
        self._watch(stages.corpus(self.setting), "corpus", None, self._left("corpus"))
        if not self.setting.corpus.exists() or not self.setting.corpus.stat().st_size:
            raise ValueError(f"the corpus is empty; see {self.setting.out / LOG}, and give it more time")

    def _codes(self) -> None:
        """However long it takes: half of the codes are of no use to what follows."""
        self._watch(stages.codes(self.setting, self.tokenizer), "codes", None, None)

    def _train(self, stage: str) -> None:
        for phase in PHASES[stage]:
            name = f"{stage}/{phase.name}"
            if name in self.progress.done:
                continue
            step, plan = self._step(stage), self.progress.plan
            all_seconds = budget.stage_seconds(stage, self.seconds, self.progress.spent, self.shares)
            seconds = budget.phase_seconds(stage, phase, all_seconds, self.progress.spent)
            if phase.adversarial:
                plan.setdefault("adversarial_from", step)
            if phase.landing and stage not in plan:
                pace = self.progress.pace.get(stage, 0.0)
                plan[stage] = budget.landing(step, pace, seconds, self.first_line)
                plan[f"{stage}_from"] = step
            steps = plan[stage] if phase.landing else OPEN_END
            decay = (steps - plan[f"{stage}_from"]) / steps if phase.landing else 0.0
            self.progress.save(self.setting.out / PROGRESS)
            if stage == "encoder":
                command = stages.encoder(self.setting, steps, decay)
            elif stage == "codec":
                joined = plan.get("adversarial_from") if phase.adversarial else None
                command = stages.codec(self.setting, steps, decay, joined)
            else:
                command = stages.tts(self.setting, self.tokenizer, steps, decay)
            if seconds > 0 and step < steps:
                self._watch(command, stage, phase.name, seconds)
            self._finish(name)
        if not (self.setting.run(stage) / "model").exists():
            self.progress.done = [one for one in self.progress.done if not one.startswith(f"{stage}/")]
            del self.progress.plan[stage]
            self.progress.save(self.setting.out / PROGRESS)
            raise ValueError(
                f"{stage} made no step in its {self.progress.spent.get(stage, 0.0):.0f} s: give more "
                f"--budget-seconds, or a larger --share-{stage}"
            )
        self._cut(stage, finished=True)

    def _watch(self, command: list[str], stage: str, phase: str | None, seconds: float | None) -> None:
        """Run a stage's command until it ends, its time is over, or this command's is: then it saves.

        Raises:
            OutOfTime: the stage is not over, this command is.
            ValueError: the stage failed.
        """
        name = f"{stage}/{phase}" if phase else stage
        if self._ending():
            raise OutOfTime(name)
        metrics, seen, first = self.setting.run(stage) / "metrics.jsonl", [], self._step(stage)
        started = before = status = time.monotonic()
        with (self.setting.out / LOG).open("ab") as log, self._start(command, log) as process:
            while process.poll() is None:
                time.sleep(POLL)
                now = time.monotonic()
                self.progress.add(stage, phase, now - before)
                before = now
                line = last_line(metrics) if phase else None
                if line and (not seen or line["step"] != seen[-1][1]):
                    seen.append((now, line["step"]))
                if now - status >= STATUS:
                    status = now
                    self.progress.save(self.setting.out / PROGRESS)
                    logger.info("%s", self._status(name, line))
                over = seconds is not None and now - started >= seconds
                ending = self._ending()
                if over or ending:
                    process.send_signal(signal.SIGTERM)
                    process.wait()
                    self.progress.add(stage, phase, time.monotonic() - before)
                    if ending and not over:
                        self._keep_pace(stage, first, started, seen)
                        if phase:
                            self._cut(stage, finished=False)
                        raise OutOfTime(name)
        self._keep_pace(stage, first, started, seen)
        if process.returncode not in (0, -signal.SIGTERM):
            raise ValueError(
                f"{name} failed with exit code {process.returncode}: see {self.setting.out / LOG}"
            )

    def _start(self, command: list[str], log: IO[bytes]) -> subprocess.Popen:
        log.write(f"\n$ {' '.join(command)}\n".encode())
        log.flush()
        set_for_it = {"TQDM_MININTERVAL": "30"}  # the log is no terminal
        if self.setting.device == "cpu":
            set_for_it["CUDA_VISIBLE_DEVICES"] = ""
        # the child keeps the lock's descriptor: OUT stays locked for as long as it writes there
        return subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **set_for_it}, close_fds=False
        )

    def _ending(self) -> bool:
        """Whether this command, rather than the stage, has to stop."""
        return bool(self.stop) or time.monotonic() >= self.until - SAVING

    def _keep_pace(self, stage: str, first: int, started: float, seen: list[tuple[float, int]]) -> None:
        """By two lines of metrics, or else by all steps since the start."""
        steps, seconds = self._step(stage) - first, time.monotonic() - started
        if seen:
            self.first_line = seen[0][0] - started
        if len(seen) > 1:
            self.progress.pace[stage] = (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0])
        elif steps > 0:
            self.progress.pace[stage] = steps / seconds
        self.progress.save(self.setting.out / PROGRESS)

    def _step(self, stage: str) -> int:
        path = self.setting.run(stage) / "state" / STEP
        return json.loads(path.read_text())["step"] if path.exists() else 0

    def _left(self, stage: str) -> float:
        spent = self.progress.spent
        return budget.stage_seconds(stage, self.seconds, spent, self.shares) - spent.get(stage, 0.0)

    def _finish(self, name: str) -> None:
        self.progress.done.append(name)
        self.progress.save(self.setting.out / PROGRESS)
        logger.info("%s is done after %.0f s", name, self.progress.spent.get(name, 0.0))

    def _status(self, name: str, line: dict | None) -> str:
        spent = sum(self.progress.spent.get(stage, 0.0) for stage in budget.STAGES)
        losses = {key: value for key, value in (line or {}).items() if key.startswith("train/loss/")}
        shown = ", ".join(f"{key.rpartition('/')[2]} {value:.3f}" for key, value in losses.items())
        where = f" step {line['step']}: {shown}" if line else ""
        return f"{spent / 60:.1f} of {self.seconds / 60:.1f} min; {name}{where}"

    def _cut(self, stage: str, *, finished: bool) -> None:
        """The stage's model as pieces, in half precision."""
        model = self.setting.run(stage) / "model"
        if not model.exists():
            return
        folder = self.setting.out / "half" / stage
        stages.halve(stage, model, folder)
        write_text(
            folder / STAGE, json.dumps({"stage": stage, "finished": finished, "step": self._step(stage)})
        )
        pieces.cut(folder, self.setting.out / "pieces" / stage)

    def _bundle(self) -> Path:
        out = self.setting.out / "bundle"
        stages.bundle(self.tokenizer, self.setting.run("tts") / "model", out)
        shutil.copy(self.setting.out / PROGRESS, out / "made.json")
        return out


def last_line(path: Path) -> dict | None:
    """The last training line of a metrics file that may be being written."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 65_536))
        lines = file.read().split(b"\n")[:-1]
    for line in reversed(lines):
        if b'"train/' in line and line.startswith(b"{"):
            return json.loads(line)
    return None
