"""The work behind one response: a text that is being spoken, and the encoder of its audio."""

from inference.engine.job import Guard
from inference.engine.options import RetryPolicy, SynthesisOptions
from inference.engine.request import Request
from inference.engine.result import SynthesisResult
from inference.longform.plan import SpeechPlan, plan
from inference.longform.stream import SynthesisStream
from inference.server.audio_encoder import StreamEncoder
from inference.server.errors import ApiError
from inference.server.limits import Limits
from inference.server.metrics import ServerMetrics, Stopwatch
from inference.server.schemas import SpeechRequest
from inference.synthesis.attempts import SynthesisFailed, watch_for_runaways
from inference.synthesis.service import Service
from inference.text.duration import expected_frames
from inference.voices.voice import Voice


class SpeechJob:
    """A text that is spoken for one client, and the encoder of its audio.

    `next_chunk` is for worker threads, one at a time; `close` may be called by any thread.

    Args:
        service: Synthesizes the segments of the text.
        payload: The request of the client.
        voice: The voice to speak with.
        limits: What a request may cost.
        metrics: Count the frames and time them.

    Raises:
        ValueError: The text cannot be spoken with this voice.
        ApiError: It is too long.
    """

    def __init__(
        self, service: Service, payload: SpeechRequest, voice: Voice, limits: Limits, metrics: ServerMetrics
    ) -> None:
        models = service.models
        options = SynthesisOptions(
            depth=payload.depth, seed=payload.seed, policy=RetryPolicy(strict=payload.strict)
        )
        self.plan = plan(models, payload.input, voice, options)
        _check_length(service, self.plan, limits)
        self.input_tokens = sum(
            len(models.text_tokenizer.encode(request.text)) for request in self.plan.requests
        )
        self.segments, self.live = len(self.plan.requests), payload.live
        self.sample_rate = models.sample_rate
        self._encoder = StreamEncoder(payload.response_format, self.sample_rate)
        self._stopwatch = Stopwatch(metrics)
        self._stream = SynthesisStream(service, self.plan, live=self.live, guard=self._guard)
        self._finished, self.closed = False, False
        self.stop_reason: str | None = None

    @property
    def started(self) -> bool:
        """Whether a frame was synthesized."""
        return self._stopwatch.frames > 0

    @property
    def frames(self) -> int:
        """Frames of the speech so far."""
        return self._stream.frames

    @property
    def result(self) -> SynthesisResult:
        """The speech that has ended."""
        return self._stream.result

    def next_chunk(self) -> bytes | None:
        """Wait for the next bytes; of an answer that is not live, for all.

        Returns:
            Encoded audio, or None behind the last.

        Raises:
            ApiError: The client left its audio unread for too long.
            Exception: The exception that ended the speech too early.
        """
        if self._finished:
            return None
        data = bytearray()
        try:
            for audio in self._stream:
                data += self._encoder.feed(audio)
                if data and self.live:
                    return bytes(data)
        except SynthesisFailed:
            self._count(self._stream.stop_reason)
            raise
        self._finished = True
        self._count(self._stream.stop_reason)
        if self.stop_reason == "cancelled":
            raise ApiError(408, "the client left its audio untouched for too long", code="client_too_slow")
        return bytes(data + self._encoder.finish())

    def close(self) -> None:
        """End the synthesis if it is not over: its slot is free before the next frame."""
        self.closed = True
        self._stream.close()
        self._count("cancelled")

    def _guard(self, request: Request) -> Guard:
        return self._stopwatch.timed(watch_for_runaways(request))

    def _count(self, reason: str) -> None:
        if self.stop_reason is None:
            self.stop_reason = reason
            self._stopwatch.stop(reason)


def _check_length(service: Service, planned: SpeechPlan, limits: Limits) -> None:
    """Refuse a text that would be cut off in the middle, or that is longer than the limit."""
    rate = service.models.tokenizer.config.frame_rate
    spare_frames = min(
        min(request.max_frames, service.max_frames) - expected_frames(request.text)
        for request in planned.requests
    )
    if spare_frames < 0:
        seconds = -spare_frames / rate
        message = f"input: a sentence of it takes {seconds:.0f} s more than there are: write it shorter"
        raise ApiError(400, message, code="string_above_max_length", param="input")
    if planned.expected_seconds > limits.max_answer_seconds:
        message = (
            f"input: takes about {planned.expected_seconds:.0f} s with its pauses, more than the "
            f"{limits.max_answer_seconds:g} s there are: split it"
        )
        raise ApiError(400, message, code="string_above_max_length", param="input")
