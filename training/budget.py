"""How a time budget is shared out, and what has been used of it: arithmetic and one small file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tokenizer.checkpoint import write_text

STAGES = ("corpus", "encoder", "codec", "codes", "tts")
SHARES = {"corpus": 0.2, "encoder": 0.16, "codec": 0.26, "codes": 0.06, "tts": 0.32}
"""Of the budget; a stage that ends early leaves what it had to those that follow."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of a training: on the plateau of the learning rate until its time is over, or down from it."""

    name: str
    share: float
    """Of the stage's time."""
    adversarial: bool = False
    landing: bool = False
    """The learning rate falls to nothing; the number of steps is that for which there is time."""


PHASES = {
    "encoder": (Phase(name="plateau", share=0.75), Phase(name="landing", share=0.25, landing=True)),
    "codec": (
        Phase(name="plateau", share=0.6),
        Phase(name="adversarial", share=0.15, adversarial=True),
        Phase(name="landing", share=0.25, adversarial=True, landing=True),
    ),
    "tts": (Phase(name="plateau", share=0.65), Phase(name="landing", share=0.35, landing=True)),
}
"""The last phase before a landing shows the pace by which the landing is planned."""


@dataclass(kw_only=True)
class Progress:
    """What a run has used and done; `PATH` holds it between two commands."""

    spent: dict[str, float] = field(default_factory=dict)
    """Seconds, by stage and by stage/phase."""
    done: list[str] = field(default_factory=list)
    """Stages and stage/phases that are over."""
    pace: dict[str, float] = field(default_factory=dict)
    """Steps a second, by stage, in its last phase."""
    plan: dict[str, int] = field(default_factory=dict)
    """Steps at which a stage lands, and at which its discriminators joined, by name."""

    def save(self, path: Path) -> None:
        """Write the file whole or not at all."""
        write_text(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Progress":
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else cls()

    def add(self, stage: str, phase: str | None, seconds: float) -> None:
        """Book the time of a stage, and of its phase."""
        for name in (stage, *([f"{stage}/{phase}"] if phase else [])):
            self.spent[name] = self.spent.get(name, 0.0) + seconds


def check_shares(shares: Mapping[str, float]) -> None:
    """ValueError where a stage would get no time."""
    if set(shares) != set(STAGES) or min(shares.values()) <= 0:
        raise ValueError(f"shares {dict(shares)}: give each of {', '.join(STAGES)} more than 0")


def stage_seconds(
    stage: str, budget: float, spent: Mapping[str, float], shares: Mapping[str, float]
) -> float:
    """All the time of a stage, used or not: its share of what the stages before it have left."""
    place = STAGES.index(stage)
    left = budget - sum(spent.get(earlier, 0.0) for earlier in STAGES[:place])
    return max(0.0, left) * shares[stage] / sum(shares[later] for later in STAGES[place:])


def phase_seconds(stage: str, phase: Phase, seconds: float, spent: Mapping[str, float]) -> float:
    """What is left of a phase's time in a stage of `seconds`, less what earlier phases overran."""
    phases = PHASES[stage]
    until = sum(one.share for one in phases[: phases.index(phase) + 1]) * seconds
    used = sum(spent.get(f"{stage}/{one.name}", 0.0) for one in phases[: phases.index(phase) + 1])
    return max(0.0, until - used)


def landing(step: int, pace: float, seconds: float, start_seconds: float) -> int:
    """The step at which a run at `step` ends in time: a twentieth is kept back, and what a start takes."""
    return step + max(1, int(pace * max(0.0, 0.95 * seconds - start_seconds)))
