"""The state behind the page: the takes of one user, and how one is spoken, segment by segment."""

import io
import time
from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np
import soundfile
from jaxtyping import Float

from inference.engine.result import SynthesisResult
from inference.longform.join import extend_depth
from inference.longform.plan import SpeechPlan
from inference.longform.stream import SynthesisStream
from inference.synthesis.service import Service
from inference.text.duration import expected_frames

MAX_RESULTS = 20
"""Takes that a session holds; the oldest is dropped first."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How fast a take was synthesized."""

    first_seconds: float
    """Until its first chunk of audio."""
    seconds: float
    """Until its end."""


@dataclass(frozen=True, kw_only=True)
class SessionResult:
    """A take of the user: a text that was spoken, in one segment or in several."""

    number: int
    """Counts the takes of the session, from 1."""
    plan: SpeechPlan
    whole: SynthesisResult
    """What was spoken of the plan, all of it unless the user stopped it."""
    timing: Timing

    @property
    def name(self) -> str:
        """The name of its files, without suffix."""
        return f"take-{self.number}-depth-{self.whole.depth}-seed-{self.seed}"

    @property
    def seed(self) -> int:
        """The seed of the user, which gives the same take again; further attempts have seeds of their own."""
        return self.plan.options.seed

    @property
    def text(self) -> str:
        """The text of all segments of the plan."""
        return " ".join(request.text for request in self.plan.requests)

    @property
    def extended(self) -> bool:
        """Whether it was extended in depth from another take."""
        request = self.whole.parts[0].request
        return request is not None and request.forced_codes is not None


@dataclass
class DemoSession:
    """The takes of one user, as long as the page is open."""

    results: list[SessionResult] = field(default_factory=list)
    """The last takes, the oldest first."""
    count: int = 0
    """Takes so far, dropped ones included."""
    stream: SynthesisStream | None = None
    """The take that is being spoken."""
    stopped: bool = False
    """Whether the user stopped it."""
    start_time: float = 0.0
    """When it was requested, by `time.perf_counter`."""

    def begin(self) -> None:
        """Note that a take was requested, and start its clock."""
        self.stopped, self.start_time = False, time.perf_counter()

    def stop(self) -> None:
        """End the take that is being spoken, also before its first audio."""
        self.stopped = True
        if self.stream is not None:
            self.stream.close()

    def add(self, planned: SpeechPlan, whole: SynthesisResult, timing: Timing) -> SessionResult:
        """Add a take to the session.

        Args:
            planned: What was to be spoken.
            whole: What was spoken.
            timing: How fast it was synthesized.

        Returns:
            The take with its number.
        """
        self.count += 1
        result = SessionResult(number=self.count, plan=planned, whole=whole, timing=timing)
        self.results = [*self.results, result][-MAX_RESULTS:]
        return result

    def find(self, number: int | None) -> SessionResult | None:
        """Return the take of this number, or None if it was dropped."""
        return next((result for result in self.results if result.number == number), None)


@dataclass(frozen=True, kw_only=True)
class AudioChunk:
    """Audio that was just synthesized, and the progress of the take."""

    audio: Float[np.ndarray, " s"]
    seconds: float
    """Length of the audio so far."""
    segment: int
    """The segment of the text, from 0."""
    timing: Timing


def speak(service: Service, planned: SpeechPlan, session: DemoSession) -> Generator[AudioChunk, None, None]:
    """Yield audio, segment by segment, each when it was checked; then the take is the last in the session.

    `DemoSession.begin` must have been called. Leaving the iteration early, or `session.stop`, frees the slot
    in the service. If nothing was spoken, no take is added.

    Args:
        service: Synthesizes the segments.
        planned: What is to be spoken.
        session: The session of the user.

    Yields:
        Chunks of audio, at the synthesizer's rate.
    """
    start_time, spoken, first = session.start_time, 0.0, 0.0
    with SynthesisStream(service, planned) as stream:
        session.stream = stream
        if session.stopped:
            stream.close()
        for audio in stream:
            first = first or time.perf_counter() - start_time
            spoken += len(audio) / stream.sample_rate
            timing = Timing(first_seconds=first, seconds=time.perf_counter() - start_time)
            segment = max(0, len(stream.results) - 1)  # it has ended before it is heard
            yield AudioChunk(audio=audio, seconds=spoken, segment=segment, timing=timing)
    session.stream = None
    if stream.results:
        timing = Timing(first_seconds=first, seconds=time.perf_counter() - start_time)
        session.add(planned, stream.result, timing)


def extend_result(service: Service, result: SessionResult, session: DemoSession) -> None:
    """Extend a take to full depth; the new take is then the last one in the session.

    `DemoSession.begin` must have been called.

    Args:
        service: Synthesizes the missing codebooks.
        result: The take to extend.
        session: The session of the user.
    """
    whole = extend_depth(service, result.whole, service.models.max_depth)
    seconds = time.perf_counter() - session.start_time
    session.add(result.plan, whole, Timing(first_seconds=seconds, seconds=seconds))


def expected_seconds(text: str, frame_rate: float) -> float:
    """Estimate the seconds that it takes to speak a text, at so many frames a second."""
    return expected_frames(text) / frame_rate


def depth_presets(max_depth: int) -> dict[str, int]:
    """Return the depths that the page offers by name, of a model with `max_depth` codebooks."""
    return {"fast": max(1, max_depth // 4), "balanced": max(1, max_depth // 2), "full": max_depth}


def shorten(text: str, max_characters: int = 40) -> str:
    """Return a text as one line of up to `max_characters`, with an ellipsis where it was cut."""
    line = " ".join(text.split())
    return line if len(line) <= max_characters else f"{line[: max_characters - 3]}..."


def wav_bytes(audio: Float[np.ndarray, " s"], sample_rate: int) -> bytes:
    """Encode samples as a 16-bit wav file, without scaling: the chunks of a take must keep their level.

    Args:
        audio: Samples [s] between -1 and 1.
        sample_rate: In Hz.

    Returns:
        The bytes of the file.
    """
    file = io.BytesIO()
    soundfile.write(file, audio, sample_rate, format="WAV", subtype="PCM_16")
    return file.getvalue()
