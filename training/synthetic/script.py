"""Deal texts to the pseudo-speakers of a teacher, as a function of the seed."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha1

from training.synthetic.speakers import Speaker

Spell = Callable[[str, Speaker], str]


@dataclass(frozen=True, kw_only=True)
class ScriptLine:
    """One text for one pseudo-speaker."""

    text: str
    spoken: str
    """The teacher's input: the text's phonemes, or the text itself."""
    speaker: Speaker
    seed: int

    @property
    def key(self) -> str:
        """The name of the line's audio file, a hash of the line."""
        # Under the names that two fields had when the first corpora were built: their files are found again
        speaker = str(self.speaker).replace("voice_blend=", "timbre=").replace("prosody_blend=", "prosody=")
        return sha1(f"{self.spoken}|{speaker}|{self.seed}".encode()).hexdigest()[:16]


def as_written(text: str, speaker: Speaker) -> str:
    """Return the text itself, for teachers that read text."""
    return text


def deal(texts: Iterable[str], speakers: Sequence[Speaker], spell: Spell, seed: int) -> Iterator[ScriptLine]:
    """Yield a line for each text, dealt to the speakers in rounds, each in shuffled order.

    Args:
        texts: what to say.
        speakers: the pseudo-speakers.
        spell: turns a text into the teacher's input.
        seed: decides the order of speakers, and the seeds of the lines.
    """
    generator = random.Random(seed + 1)
    round_: list[Speaker] = []
    for number, text in enumerate(texts):
        round_ = round_ or generator.sample(speakers, len(speakers))
        speaker = round_.pop()
        yield ScriptLine(
            text=text, spoken=spell(text, speaker), speaker=speaker, seed=seed * 1_000_003 + number
        )
