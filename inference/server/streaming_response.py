"""Send speech while it is synthesized, and stop when the client has left."""

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
from inference.server.speech_job import SpeechJob

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


async def in_thread(
    function: Callable[[], Result], limiter: CapacityLimiter, *, abandon: bool = False
) -> Result:
    """Call a function in a worker thread.

    Args:
        function: The function, without arguments.
        limiter: Limits how many worker threads there are.
        abandon: Whether a cancelled request stops waiting for the function.

    Returns:
        The result of the function.
    """
    return await to_thread.run_sync(function, limiter=limiter, abandon_on_cancel=abandon)


async def first_chunk(
    job: SpeechJob, request: Request, limits: Limits, limiter: CapacityLimiter
) -> bytes | None:
    """Wait for the first bytes, whose errors can still be answered by an HTTP status.

    Args:
        job: The synthesis.
        request: Tells when the client leaves.
        limits: `queue_seconds` is the longest wait.
        limiter: Limits how many worker threads there are.

    Returns:
        Encoded audio, or None when the client left meanwhile.

    Raises:
        ApiError: The queue did not move for too long, or is full, or the synthesis failed.
    """
    data, failure, late = None, None, False
    async with anyio.create_task_group() as group:

        async def until_gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        async def until_late() -> None:
            nonlocal late
            await anyio.sleep(limits.queue_seconds)
            late = not job.started
            if late:
                group.cancel_scope.cancel()

        group.start_soon(until_gone)
        group.start_soon(until_late)
        try:
            data = await in_thread(job.next_chunk, limiter, abandon=True)
        except Exception as error:
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise api_error(failure) from failure
    if late:
        message = f"the queue did not move for {limits.queue_seconds:g} s: try again later"
        raise ApiError(503, message, code="queue_timeout", retry_seconds=RETRY_SECONDS)
    return data


class SpeechResponse(StreamingResponse):
    """The response that sends audio as it is synthesized.

    A client that leaves, or reads nothing for too long, ends its take.

    Args:
        job: The synthesis.
        payload: The request of the client.
        first: The first bytes, see `first_chunk`.
        limits: `send_seconds` is how long the client may read nothing.
        limiter: Limits how many worker threads there are.
    """

    def __init__(
        self, job: SpeechJob, payload: SpeechRequest, first: bytes, limits: Limits, limiter: CapacityLimiter
    ) -> None:
        self.job, self.send_seconds = job, limits.send_seconds
        sse = payload.stream_format == "sse"
        self._chunks = _chunks(job, first, limiter)
        headers = {
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",  # or nginx would hold the stream back
            "X-AI-Generated": "true",
            "X-Sample-Rate": str(job.sample_rate),
            "X-Seed": str(job.plan.options.seed),
            "X-Depth": str(job.plan.options.depth),
            "X-Policy": "live" if job.live else "checked",
            "X-Segments": str(job.segments),
            "X-Pieces": str(job.segments),  # the old name, for this version
        }
        if not job.live:  # all of it is known
            result = job.result
            headers |= {
                "X-Attempts": str(result.attempts),
                "X-Stop-Reason": result.stop_reason,
                "X-Acceptable": str(result.acceptable).lower(),
            }
            if result.intelligibility is not None:
                headers["X-Intelligibility"] = f"{result.intelligibility:.3f}"
            if not sse:
                headers["Content-Length"] = str(len(first))
        media_type = "text/event-stream" if sse else MEDIA_TYPES[payload.response_format]
        content = _events(job, self._chunks) if sse else self._chunks
        super().__init__(content, headers=headers, media_type=media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; the synthesis is over when this returns."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.job.close()

    async def stream_response(self, send: Send) -> None:
        """Send the body; where something fails it is left incomplete, so that the client can tell."""

        async def send_in_time(message: Message) -> None:
            with anyio.fail_after(self.send_seconds):
                await send(message)

        try:
            await super().stream_response(send_in_time)
        except TimeoutError:
            logger.info("a client took nothing for %g s: its answer is cut", self.send_seconds)
        except Exception as error:
            logger.warning("an answer is cut: %s", api_error(error))


async def _chunks(job: SpeechJob, first: bytes, limiter: CapacityLimiter) -> AsyncIterator[bytes]:
    data: bytes | None = first
    while data is not None:
        yield data
        data = await in_thread(job.next_chunk, limiter, abandon=True)


async def _events(job: SpeechJob, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield server-sent events as OpenAI names them.

    The last one also says what the headers of a stream cannot: why it ended.
    """
    try:
        async for data in chunks:
            if data:
                audio = base64.b64encode(data).decode()
                yield _event({"type": "speech.audio.delta", "audio": audio})
    except Exception as error:
        yield _event(api_error(error).body)
        return
    frames, result = job.frames, job.result
    yield _event(
        {
            "type": "speech.audio.done",
            "usage": {
                "input_tokens": job.input_tokens,
                "output_tokens": frames,
                "total_tokens": job.input_tokens + frames,
            },
            "stop_reason": job.stop_reason,
            "attempts": result.attempts,
            "acceptable": result.acceptable,
            "intelligibility": result.intelligibility,
            "segments": job.segments,
            "pieces": job.segments,  # the old name, for this version
            "seed": job.plan.options.seed,
            "depth": result.depth,
            "sample_rate": job.sample_rate,
            "ai_generated": True,
        }
    )


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()
