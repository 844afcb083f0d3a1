"""The state behind the page: the takes of one user, and how one is synthesized while it is played."""

import io
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import soundfile
from jaxtyping import Float

from inference.engine.result import SynthesisResult
from inference.longform.plan import LongFormPlan
from inference.longform.stream import LongFormStream, join_results
from inference.synthesis.service import Service
from inference.text.duration import expected_frames

FIRST_SECONDS, NEXT_SECONDS = 0.5, 1.0
"""Length of the first chunk of audio, which shall come soon, and of the others, which shall be few."""
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
    plan: LongFormPlan
    segments: tuple[SynthesisResult, ...]
    """The segments of the plan, from the first; fewer where the user stopped it."""
    whole: SynthesisResult
    """All segments joined, as they are played."""
    timing: Timing
    adapt_steps: int | None = None
    """Training steps on the voice of the model that spoke; None for the model as it is."""

    @property
    def name(self) -> str:
        """The name of its files, without suffix."""
        return f"take-{self.number}-depth-{self.whole.depth}-seed-{self.whole.seed}"

    @property
    def text(self) -> str:
        """The text of all segments of the plan."""
        return " ".join(request.text for request in self.plan.requests)

    @property
    def extended(self) -> bool:
        """Whether it was extended in depth from another take."""
        request = self.segments[0].request
        return request is not None and request.forced_codes is not None


@dataclass
class DemoSession:
    """The takes of one user, as long as the page is open."""

    results: list[SessionResult] = field(default_factory=list)
    """The last takes, the oldest first."""
    count: int = 0
    """Takes so far, dropped ones included."""
    stream: LongFormStream | None = None
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

    def add(
        self,
        planned: LongFormPlan,
        segments: Sequence[SynthesisResult],
        whole: SynthesisResult,
        timing: Timing,
        adapt_steps: int | None = None,
    ) -> SessionResult:
        """Add a take to the session.

        Args:
            planned: What was to be spoken.
            segments: The segments that were spoken.
            whole: The segments joined.
            timing: How fast they were synthesized.
            adapt_steps: Training steps on the voice of the model that spoke, if it was trained.

        Returns:
            The take with its number.
        """
        self.count += 1
        result = SessionResult(
            number=self.count,
            plan=planned,
            segments=tuple(segments),
            whole=whole,
            timing=timing,
            adapt_steps=adapt_steps,
        )
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


def speak(
    service: Service, planned: LongFormPlan, session: DemoSession, adapt_steps: int | None = None
) -> Generator[AudioChunk, None, None]:
    """Yield audio as it is synthesized; afterwards it is the last take in the session.

    `DemoSession.begin` must have been called. Leaving the iteration early, or `session.stop`, frees the slot
    in the service. If nothing was spoken, no take is added.

    Args:
        service: Synthesizes the segments.
        planned: What is to be spoken.
        session: The session of the user.
        adapt_steps: Training steps on the voice of the service's model, if it was trained.

    Yields:
        Chunks of audio, at the synthesizer's rate.
    """
    start_time, spoken, first = session.start_time, 0.0, 0.0
    frame_rate = service.synthesizer.tokenizer.config.frame_rate
    with LongFormStream(service, planned, chunk_frames=round(FIRST_SECONDS * frame_rate)) as stream:
        session.stream = stream
        if session.stopped:
            stream.close()
        for audio in stream:
            first = first or time.perf_counter() - start_time
            spoken += len(audio) / stream.sample_rate
            stream.chunk_frames = round(NEXT_SECONDS * frame_rate)
            timing = Timing(first_seconds=first, seconds=time.perf_counter() - start_time)
            yield AudioChunk(audio=audio, seconds=spoken, segment=stream.segment, timing=timing)
    session.stream = None
    segments = [segment for segment in stream.results if len(segment.audio)]
    if segments:
        timing = Timing(first_seconds=first, seconds=time.perf_counter() - start_time)
        session.add(
            planned,
            segments,
            join_results(planned, segments, service.synthesizer.tokenizer),
            timing,
            adapt_steps,
        )


def extend_result(service: Service, result: SessionResult, session: DemoSession) -> None:
    """Extend a take to full depth; the new take is then the last one in the session.

    `DemoSession.begin` must have been called.

    Args:
        service: Synthesizes the missing codebooks.
        result: The take to extend.
        session: The session of the user.
    """
    segments = [
        at_other_depth(service, segment, service.synthesizer.max_depth) for segment in result.segments
    ]
    whole = join_results(result.plan, segments, service.synthesizer.tokenizer)
    seconds = time.perf_counter() - session.start_time
    timing = Timing(first_seconds=seconds, seconds=seconds)
    session.add(result.plan, segments, whole, timing, result.adapt_steps)


def at_depth(service: Service, result: SessionResult, depth: int) -> SynthesisResult:
    """Return a whole take at another depth.

    Args:
        service: Synthesizes what is missing.
        result: The take.
        depth: The number of codebooks to use.

    Returns:
        The segments of the take at this depth, joined.
    """
    segments = [at_other_depth(service, segment, depth) for segment in result.segments]
    return join_results(result.plan, segments, service.synthesizer.tokenizer)


def at_other_depth(service: Service, segment: SynthesisResult, depth: int) -> SynthesisResult:
    """Return a segment at another depth, as `Synthesizer.extend_depth` does, but by a service.

    Args:
        service: Synthesizes what is missing.
        segment: One segment of a take.
        depth: The number of codebooks to use.

    Returns:
        The segment at this depth, which stopped for the same reason.
    """
    if depth == segment.depth:
        return segment
    changed = service.synthesize(service.synthesizer.extension_request(segment, depth))
    return replace(changed, stop_reason=segment.stop_reason)


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
