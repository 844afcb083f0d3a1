"""What the pseudo-speakers of a teacher are to read: lines dealt out as a function of the seed."""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha1
from pathlib import Path

from tokenizer.checkpoint import write_text
from training.speakers import Speaker

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


def write_script(path: Path, lines: Iterable[Line]) -> None:
    """Write lines as JSONL: each speaker in full where it first speaks, by name afterwards."""
    known: set[str] = set()
    rows = []
    for line in lines:
        speaker = line.speaker.name if line.speaker.name in known else asdict(line.speaker)
        known.add(line.speaker.name)
        rows.append(json.dumps({**asdict(line), "speaker": speaker}, ensure_ascii=False))
    write_text(path, "\n".join(rows) + "\n")


def read_script(path: Path) -> Iterator[Line]:
    """The lines of `write_script`; ValueError names the line that is none."""
    speakers: dict[str, Speaker] = {}
    with path.open(encoding="utf-8") as file:
        for number, row in enumerate(file, 1):
            try:
                fields = json.loads(row)
                given = fields["speaker"]
                if isinstance(given, dict):
                    blends = {
                        name: tuple((voice, weight) for voice, weight in given[name])
                        for name in ("timbre", "prosody")
                    }
                    tuples = {name: tuple(given[name]) for name in ("band", "warp")}
                    speakers[given["name"]] = Speaker(**{**given, **blends, **tuples})
                    given = given["name"]
                yield Line(**{**fields, "speaker": speakers[given]})
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}:{number} is no line of a script ({error}); make it anew") from None
