"""One answer in the making: a text that is being spoken, and the encoder of its audio."""

from inference.engine.job import Guard
from inference.engine.request import Request
from inference.longform.plan import Plan, plan
from inference.longform.stream import ReadingStream, watch_for_runaways
from inference.server.audio_encoder import Encoder
from inference.server.errors import ApiError
from inference.server.limits import Limits
from inference.server.metrics import ServerMetrics, Stopwatch
from inference.server.schemas import SpeechRequest
from inference.synthesis.service import Service
from inference.text.duration import usual_frames
from inference.text.normalization import normalise
from inference.voices.voice import Voice


class Speech:
    """A reading and its encoder. `chunk` is for worker threads, one at a time; `close` for any."""

    def __init__(
        self, service: Service, asked: SpeechRequest, voice: Voice, limits: Limits, metrics: ServerMetrics
    ) -> None:
        synthesizer = service.synthesizer
        planned = plan(synthesizer, normalise(asked.input), voice, depth=asked.depth, seed=asked.seed)
        _check_length(service, planned, limits)
        self.input_tokens = sum(len(synthesizer.text.encode(request.text)) for request in planned.requests)
        self.pieces, self.request = len(planned.requests), planned.requests[0]
        self.sample_rate = synthesizer.sample_rate
        self._encoder = Encoder(asked.response_format, self.sample_rate)
        self._watch = Stopwatch(metrics)
        self._stream = ReadingStream(service, planned, guard=self._guard)
        self._over, self.closed = False, False
        self.stop_reason: str | None = None

    @property
    def frames(self) -> int:
        """Handed out."""
        return self._stream.frames

    def chunk(self) -> bytes | None:
        """The next bytes, when they are there; None behind the last. Raises what ended the take too early."""
        if self._over:
            return None
        for audio in self._stream:
            if data := self._encoder.feed(audio):
                return data
        self._over = True
        self._count(self._stream.stop_reason)
        if self.stop_reason == "cancelled":
            raise ApiError(408, "the client left its audio untouched for too long", code="client_too_slow")
        return self._encoder.finish()

    def close(self) -> None:
        """End the reading if it is not over: its slot is free before the next frame."""
        self.closed = True
        self._stream.close()
        self._count("cancelled")

    def _guard(self, request: Request) -> Guard:
        return self._watch.watching(watch_for_runaways(request))

    def _count(self, reason: str) -> None:
        if self.stop_reason is None:
            self.stop_reason = reason
            self._watch.stop(reason)


def _check_length(service: Service, planned: Plan, limits: Limits) -> None:
    """Refuse what would be cut off in the middle, and what takes all day."""
    rate = service.synthesizer.tokenizer.config.frame_rate
    room = min(
        min(request.max_frames, service.max_frames) - usual_frames(request.text)
        for request in planned.requests
    )
    if room < 0:
        message = f"input: a sentence of it takes {-room / rate:.0f} s more than there are: write it shorter"
        raise ApiError(400, message, code="string_above_max_length", param="input")
    if planned.usual_seconds > limits.max_answer_seconds:
        message = (
            f"input: takes about {planned.usual_seconds:.0f} s with its pauses, more than the "
            f"{limits.max_answer_seconds:g} s there are: split it"
        )
        raise ApiError(400, message, code="string_above_max_length", param="input")
