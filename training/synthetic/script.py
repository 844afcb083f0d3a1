"""What the pseudo-speakers of a teacher are to read: lines dealt out as a function of the seed."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha1

from training.synthetic.speakers import Speaker

Spell = Callable[[str, Speaker], str]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One text for one pseudo-speaker."""

    text: str
    spoken: str
    """The text as the teacher is given it: its phonemes, or the text itself."""
    speaker: Speaker
    seed: int

    @property
    def key(self) -> str:
        """Names the line's audio."""
        return sha1(f"{self.spoken}|{self.speaker}|{self.seed}".encode()).hexdigest()[:16]


def as_written(text: str, speaker: Speaker) -> str:
    """The spelling of teachers that read text."""
    return text


def deal(texts: Iterable[str], speakers: Sequence[Speaker], spell: Spell, seed: int) -> Iterator[Line]:
    """A line for each text, dealt to the speakers round after round in shuffled order."""
    generator = random.Random(seed + 1)
    turn: list[Speaker] = []
    for number, text in enumerate(texts):
        turn = turn or generator.sample(speakers, len(speakers))
        speaker = turn.pop()
        yield Line(text=text, spoken=spell(text, speaker), speaker=speaker, seed=seed * 1_000_003 + number)
