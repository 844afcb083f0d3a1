"""What is behind the page: one visitor's takes, and how one is made while it is listened to."""

import io
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import soundfile
from jaxtyping import Float

from inference.engine.result import Take
from inference.longform.plan import Plan
from inference.longform.stream import ReadingStream, joined
from inference.synthesis.service import Service
from inference.text.duration import usual_frames

FIRST_SECONDS, NEXT_SECONDS = 0.5, 1.0
"""Length of the first piece of audio, and of the others: soon there, then few."""
MOST_TAKES = 20
"""Takes that a visitor can come back to; the oldest is forgotten first."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How fast a take was made."""

    first_seconds: float
    """Until its first piece of audio."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A take of this visitor: a text that was spoken, in one piece or in several."""

    number: int
    plan: Plan
    pieces: tuple[Take, ...]
    """Of the plan, from the first; fewer where it was stopped."""
    take: Take
    """All of them, as they are heard."""
    timing: Timing
    tuned: int | None = None
    """Steps of the model that made it on the voice."""

    @property
    def name(self) -> str:
        return f"take-{self.number}-depth-{self.take.depth}-seed-{self.take.seed}"

    @property
    def text(self) -> str:
        """Of the pieces that were asked for."""
        return " ".join(request.text for request in self.plan.requests)

    @property
    def mastered(self) -> bool:
        request = self.pieces[0].request
        return request is not None and request.draft is not None


@dataclass
class Session:
    """What is remembered of one visitor, as long as the page is open."""

    takes: list[Kept] = field(default_factory=list)
    made: int = 0
    stream: ReadingStream | None = None
    """What is being spoken."""
    stopped: bool = False
    begun: float = 0.0

    def begin(self) -> None:
        """A take is asked for; its clock starts."""
        self.stopped, self.begun = False, time.perf_counter()

    def stop(self) -> None:
        """End what is being spoken, also where it has not begun."""
        self.stopped = True
        if self.stream is not None:
            self.stream.close()

    def keep(
        self, planned: Plan, pieces: Sequence[Take], whole: Take, timing: Timing, tuned: int | None = None
    ) -> Kept:
        self.made += 1
        kept = Kept(
            number=self.made, plan=planned, pieces=tuple(pieces), take=whole, timing=timing, tuned=tuned
        )
        self.takes = [*self.takes, kept][-MOST_TAKES:]
        return kept

    def take(self, number: int | None) -> Kept | None:
        """The one of this number, if it is still there."""
        return next((kept for kept in self.takes if kept.number == number), None)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Audio that has just been made, and how it goes so far."""

    audio: Float[np.ndarray, " s"]
    seconds: float
    """Of audio so far."""
    piece: int
    """Of the text, from 0."""
    timing: Timing


def speak(
    service: Service, planned: Plan, session: Session, tuned: int | None = None
) -> Generator[Piece, None, None]:
    """The audio as it comes; afterwards it is the last take in the session, unless nothing was spoken.

    The session has begun it; `tuned` says which service that is. Leaving the iteration early, or
    `session.stop`, frees its place in the service.
    """
    begun, spoken, first = session.begun, 0.0, 0.0
    frame_rate = service.synthesizer.tokenizer.config.frame_rate
    with ReadingStream(service, planned, chunk_frames=round(FIRST_SECONDS * frame_rate)) as stream:
        session.stream = stream
        if session.stopped:
            stream.close()
        for audio in stream:
            first = first or time.perf_counter() - begun
            spoken += len(audio) / stream.sample_rate
            stream.chunk_frames = round(NEXT_SECONDS * frame_rate)
            timing = Timing(first_seconds=first, seconds=time.perf_counter() - begun)
            yield Piece(audio=audio, seconds=spoken, piece=stream.piece, timing=timing)
    session.stream = None
    pieces = [take for take in stream.takes if len(take.audio)]
    if pieces:
        timing = Timing(first_seconds=first, seconds=time.perf_counter() - begun)
        session.keep(planned, pieces, joined(planned, pieces, service.synthesizer.tokenizer), timing, tuned)


def deepen(service: Service, kept: Kept, session: Session) -> None:
    """Master a take to full depth; it is the last one in the session then. The session has begun it."""
    pieces = [remade(service, take, service.synthesizer.max_depth) for take in kept.pieces]
    whole = joined(kept.plan, pieces, service.synthesizer.tokenizer)
    seconds = time.perf_counter() - session.begun
    session.keep(kept.plan, pieces, whole, Timing(first_seconds=seconds, seconds=seconds), kept.tuned)


def at_depth(service: Service, kept: Kept, depth: int) -> Take:
    """All of a take at another depth, as it is heard."""
    pieces = [remade(service, take, depth) for take in kept.pieces]
    return joined(kept.plan, pieces, service.synthesizer.tokenizer)


def remade(service: Service, take: Take, depth: int) -> Take:
    """The same take at another depth, as `Synthesizer.master` makes it, by the service."""
    if depth == take.depth:
        return take
    made = service.take(service.synthesizer.mastering(take, depth))
    return replace(made, stop_reason=take.stop_reason)


def usual_seconds(text: str, frame_rate: float) -> float:
    """About how long it takes to speak `text`."""
    return usual_frames(text) / frame_rate


def presets(deepest: int) -> dict[str, int]:
    """Depths with names."""
    return {"draft": max(1, deepest // 4), "balanced": max(1, deepest // 2), "master": deepest}


def shortened(text: str, most: int = 40) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def wav_bytes(audio: Float[np.ndarray, " s"], sample_rate: int) -> bytes:
    """A whole 16-bit wav file. The level is left as it is: pieces of one take must fit each other."""
    file = io.BytesIO()
    soundfile.write(file, audio, sample_rate, format="WAV", subtype="PCM_16")
    return file.getvalue()
