"""Speech sent while it is being made, and cut where the client is gone."""

import base64
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import anyio
from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from inference.server.audio_encoder import MEDIA_TYPES
from inference.server.errors import RETRY_SECONDS, ApiError, api_error
from inference.server.limits import Limits
from inference.server.schemas import SpeechRequest
from inference.server.speech_job import Speech

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


async def in_thread(
    function: Callable[[], Result], limiter: CapacityLimiter, *, leave: bool = False
) -> Result:
    """Call it in a thread; with `leave` nobody waits for it when the request is cancelled."""
    return await to_thread.run_sync(function, limiter=limiter, abandon_on_cancel=leave)


async def first_chunk(
    speech: Speech, request: Request, limits: Limits, limiter: CapacityLimiter
) -> bytes | None:
    """The first bytes; None when the client left meanwhile. What goes wrong here has a status of its own."""
    data, failure, late = None, None, False
    async with anyio.create_task_group() as group:

        async def until_gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(until_gone)
        with anyio.move_on_after(limits.queue_seconds) as patience:
            try:
                data = await in_thread(speech.chunk, limiter, leave=True)
            except Exception as error:
                failure = error
        late = patience.cancelled_caught
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if late:
        message = f"the queue did not move for {limits.queue_seconds:g} s: try again later"
        raise ApiError(503, message, code="queue_timeout", retry_seconds=RETRY_SECONDS)
    return data


class SpeechResponse(StreamingResponse):
    """Chunks as they are made. The client that leaves, or takes nothing for too long, ends its take."""

    def __init__(
        self, speech: Speech, asked: SpeechRequest, first: bytes, limits: Limits, limiter: CapacityLimiter
    ) -> None:
        self.speech, self.send_seconds = speech, limits.send_seconds
        sse = asked.stream_format == "sse"
        self._chunks = _chunks(speech, first, limiter)
        headers = {
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",  # or nginx would hold the stream back
            "X-AI-Generated": "true",
            "X-Sample-Rate": str(speech.sample_rate),
            "X-Seed": str(speech.request.seed),
            "X-Depth": str(speech.request.depth),
            "X-Pieces": str(speech.pieces),
        }
        media_type = "text/event-stream" if sse else MEDIA_TYPES[asked.response_format]
        content = _events(speech, self._chunks) if sse else self._chunks
        super().__init__(content, headers=headers, media_type=media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.speech.close()

    async def stream_response(self, send: Send) -> None:
        """Ends without the end where something went wrong, so that the client can tell."""

        async def patient(message: Message) -> None:
            with anyio.fail_after(self.send_seconds):
                await send(message)

        try:
            await super().stream_response(patient)
        except TimeoutError:
            logger.info("a client took nothing for %g s: its answer is cut", self.send_seconds)
        except Exception as error:
            logger.warning("an answer is cut: %s", api_error(error))


async def _chunks(speech: Speech, first: bytes, limiter: CapacityLimiter) -> AsyncIterator[bytes]:
    data: bytes | None = first
    while data is not None:
        yield data
        data = await in_thread(speech.chunk, limiter, leave=True)


async def _events(speech: Speech, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """As OpenAI names them; the last also says what the headers of a stream cannot: why it ended."""
    try:
        async for data in chunks:
            if data:
                audio = base64.b64encode(data).decode()
                yield _event({"type": "speech.audio.delta", "audio": audio})
    except Exception as error:
        yield _event(api_error(error).body)
        return
    made, request = speech.frames, speech.request
    yield _event(
        {
            "type": "speech.audio.done",
            "usage": {
                "input_tokens": speech.input_tokens,
                "output_tokens": made,
                "total_tokens": speech.input_tokens + made,
            },
            "stop_reason": speech.stop_reason,
            "pieces": speech.pieces,
            "seed": request.seed,
            "depth": request.depth,
            "sample_rate": speech.sample_rate,
            "ai_generated": True,
        }
    )


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()
