"""Choose and load the teacher, the TTS system that speaks a synthetic corpus."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from training.synthetic import teacher_hibari, teacher_kokoro
from training.synthetic.script import Spell, as_written
from training.synthetic.speakers import Speaker, hibari_speakers, kokoro_speakers


class Teacher(Protocol):
    """A loaded TTS system."""

    def speak(self, spoken: str, speaker: Speaker, seed: int) -> np.ndarray:
        """Return samples [s] float32 at 24 kHz, spoken at speed / alpha, to be played alpha times faster."""
        ...


@dataclass(frozen=True, kw_only=True)
class TeacherChoice:
    """Which teacher to use; each process loads a copy of it."""

    name: Literal["hibari", "kokoro"] = "hibari"
    folder: Path | None = None
    """Folder of Kokoro, as `training.synthetic.fetch_kokoro` writes it."""
    device: str = "cpu"
    speakers: int = 400
    """Number of pseudo-speakers."""

    def __post_init__(self) -> None:
        if self.name == "kokoro" and self.folder is None:
            raise ValueError(
                "Kokoro needs its folder: make one with `python -m training.synthetic.fetch_kokoro FOLDER`"
            )

    @property
    def source(self) -> str:
        """The teacher's name in manifests."""
        return teacher_kokoro.SOURCE if self.name == "kokoro" else teacher_hibari.SOURCE

    @property
    def spell(self) -> Spell:
        """The function that turns a text into the teacher's input."""
        return teacher_kokoro.spell if self.name == "kokoro" else as_written

    def inventory(self, seed: int) -> list[Speaker]:
        """Draw the pseudo-speakers."""
        speakers = kokoro_speakers if self.name == "kokoro" else hibari_speakers
        return speakers(self.speakers, seed)


@cache
def open_teacher(choice: TeacherChoice) -> Teacher:
    """Load a teacher, once in each process."""
    if choice.name == "kokoro":
        assert choice.folder is not None
        return teacher_kokoro.KokoroTeacher(choice.folder, choice.device)
    return teacher_hibari.HibariTeacher()
