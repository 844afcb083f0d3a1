"""One answer in the making: a take, and the encoder of its audio."""

from inference.api_error import ApiError
from inference.encoding import Encoder
from inference.request import Request, usual_frames
from inference.server_metrics import ServerMetrics, Stopwatch
from inference.service import Service
from inference.speech_request import SpeechRequest
from inference.voice import Voice


class Speech:
    """A take and its encoder. `chunk` is for worker threads, one at a time; `close` for any."""

    def __init__(self, service: Service, asked: SpeechRequest, voice: Voice, metrics: ServerMetrics) -> None:
        synthesizer = service.synthesizer
        request = synthesizer.request(asked.input, voice, depth=asked.depth, seed=asked.seed)
        _check_length(service, request)
        self.input_tokens = len(synthesizer.text.encode(request.text))
        self.request, self.sample_rate = request, synthesizer.sample_rate
        self._encoder = Encoder(asked.response_format, self.sample_rate)
        self._watch = Stopwatch(metrics)
        self._stream = service.stream(request, guard=self._watch)
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
        self._count(self._stream.take.stop_reason)
        if self.stop_reason == "cancelled":
            raise ApiError(408, "the client left its audio untouched for too long", code="client_too_slow")
        return self._encoder.finish()

    def close(self) -> None:
        """End the take if it is not over: its slot is free before the next frame."""
        self.closed = True
        self._stream.close()
        self._count("cancelled")

    def _count(self, reason: str) -> None:
        if self.stop_reason is None:
            self.stop_reason = reason
            self._watch.stop(reason)


def _check_length(service: Service, request: Request) -> None:
    """Refuse what would be cut off in the middle."""
    most, usual = min(request.max_frames, service.max_frames), usual_frames(request.text)
    if usual > most:
        rate = service.synthesizer.tokenizer.config.frame_rate
        message = (
            f"input: takes about {usual / rate:.0f} s, more than the {most / rate:.0f} s there are: split it"
        )
        raise ApiError(400, message, code="string_above_max_length", param="input")
