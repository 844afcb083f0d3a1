"""An HTTP server that OpenAI's clients can talk to.

    with Service(synthesizer) as service:
        app = create_server(service, VoiceFolder(synthesizer, Path("voices")))
        uvicorn.run(app)

The event loop never computes: takes are synthesized by the thread of `inference.synthesis.service`, and what
else takes time (encoding a prompt, waiting for a frame, encoding audio) happens in worker threads, of which
there are as many as responses may be open.

A text that is longer than a sentence or two is spoken in segments, one after the other, in one response.
Files are sent whole, after every segment was checked; what a client plays at once (pcm, opus, events) leaves
while it is synthesized.

A slow client delays nobody. A segment is synthesized at full speed, and waits in memory: at most the
service's `max_seconds` of it, for each of at most 2 x (slots + waiting) open responses; more requests get
429. A client that reads nothing for `Limits.send_seconds`, or leaves a take unread for the service's
`patience`, is cut off.
"""

import time
import weakref
from collections.abc import Collection
from functools import partial
from typing import Annotated, Any

from anyio import CapacityLimiter
from fastapi import APIRouter, FastAPI, File, Form, Request, Response, UploadFile
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match

from inference.engine.engine import EngineDead
from inference.server.errors import RETRY_SECONDS, ApiError, add_handlers, api_error
from inference.server.limits import Limits
from inference.server.metrics import ServerMetrics
from inference.server.middleware import ApiMiddleware
from inference.server.schemas import SpeechRequest, check_model
from inference.server.speech_job import SpeechJob
from inference.server.streaming_response import SpeechResponse, first_chunk, in_thread
from inference.server.voice_store import UnknownVoice, VoiceEntry, VoiceFolder
from inference.synthesis.service import Service
from tokenizer.io.audio import AudioError

MODEL = "cat-tts"
"""The name by which clients call the model, whichever it is."""


def create_server(
    service: Service,
    voices: VoiceFolder,
    *,
    limits: Limits | None = None,
    api_key: str | None = None,
    origins: Collection[str] = (),
) -> FastAPI:
    """Build the application that serves the API.

    A page may be mounted beside it: `api_key`, `limits` and `origins` do not apply to the page.

    Args:
        service: Synthesizes the takes of all clients.
        voices: The voices that clients can name, list, add and delete.
        limits: What a request may cost; the defaults of `Limits` if None.
        api_key: The key that clients must send as a Bearer token; None lets everybody in.
        origins: Origins of the web pages that may use the API from a browser; "*" stands for all.

    Returns:
        An ASGI application with /v1, /healthz and /metrics.
    """
    limits = limits or Limits()
    metrics = ServerMetrics(service.engine, service.models.tokenizer.config.frame_rate)
    app = FastAPI(title="CAT-TTS", openapi_url=None)
    app.add_middleware(ApiMiddleware, limits=limits, metrics=metrics, api_key=api_key, origins=origins)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    add_handlers(app)
    app.include_router(_speech_routes(service, voices, limits, metrics))
    app.include_router(_voice_routes(voices, limits))
    app.include_router(_status_routes(service, metrics))
    app.include_router(_unknown_routes(app))
    return app


def _speech_routes(
    service: Service, voices: VoiceFolder, limits: Limits, metrics: ServerMetrics
) -> APIRouter:
    router = APIRouter()
    max_open = 2 * (service.engine.slots + service.engine.waiting)
    workers, jobs = CapacityLimiter(max_open), weakref.WeakSet[SpeechJob]()

    def start(payload: SpeechRequest) -> SpeechJob:
        try:
            voice = voices.voice(payload.voice_name)
        except UnknownVoice as error:
            raise ApiError(404, str(error), code="voice_not_found", param="voice") from None
        try:
            return SpeechJob(service, payload, voice, limits, metrics)
        except ValueError as error:
            raise api_error(error) from None

    @router.post("/v1/audio/speech")
    async def speech(payload: SpeechRequest, request: Request) -> Response:
        payload.check(MODEL, limits)
        if sum(not job.closed for job in jobs) >= max_open:
            raise ApiError(429, "too many answers are open", code="queue_full", retry_seconds=RETRY_SECONDS)
        job = await in_thread(partial(start, payload), workers)
        jobs.add(job)
        try:
            first = await first_chunk(job, request, limits, workers)
        except BaseException:
            job.close()
            raise
        if first is None:
            job.close()
            return Response(status_code=499)  # nobody is there to read it
        return SpeechResponse(job, payload, first, limits, workers)

    return router


def _voice_routes(voices: VoiceFolder, limits: Limits) -> APIRouter:
    """Serve voices under both addresses: the short one, and that of OpenAI's clients."""
    router = APIRouter()
    workers = CapacityLimiter(4)

    async def list_voices() -> dict[str, Any]:
        entries = await in_thread(voices.entries, workers)
        return {"object": "list", "data": [_voice_json(entry) for entry in entries]}

    async def create(
        name: Annotated[str, Form()],
        audio_sample: Annotated[UploadFile, File()],
        transcript: Annotated[str, Form()],
        consent: Annotated[str, Form()],
        language: Annotated[str, Form()] = "",
    ) -> dict[str, Any]:
        if len(transcript) > limits.max_characters:
            message = f"transcript: {len(transcript)} characters, and {limits.max_characters} are the most"
            raise ApiError(400, message, code="string_above_max_length", param="transcript")
        recording = await audio_sample.read()
        try:
            add = partial(voices.add, name, recording, transcript, consent, language)
            return _voice_json(await in_thread(add, workers))
        except FileExistsError as error:
            raise ApiError(409, str(error), code="voice_exists", param="name") from None
        except PermissionError as error:
            raise ApiError(403, str(error), code="voices_read_only") from None
        except AudioError as error:
            raise ApiError(
                400, f"audio_sample: {error}", code="invalid_audio", param="audio_sample"
            ) from None
        except ValueError as error:
            raise api_error(error) from None

    async def delete(name: str) -> dict[str, Any]:
        try:
            await in_thread(partial(voices.remove, name), workers)
        except UnknownVoice as error:
            raise ApiError(404, str(error), code="voice_not_found", param="voice") from None
        except PermissionError as error:
            raise ApiError(403, str(error), code="voices_read_only") from None
        return {"id": name, "object": "audio.voice.deleted", "deleted": True}

    for path in ("/v1/voices", "/v1/audio/voices"):
        router.get(path)(list_voices)
        router.post(path)(create)
        router.delete(path + "/{name:path}")(delete)
    return router


def _voice_json(entry: VoiceEntry) -> dict[str, Any]:
    return {
        "id": entry.name,
        "object": "audio.voice",
        "name": entry.name,
        "created_at": entry.created,
        "type": "audio_sample",
    }


def _status_routes(service: Service, metrics: ServerMetrics) -> APIRouter:
    router, started, models = APIRouter(), int(time.time()), service.models
    model = {
        "id": MODEL,
        "object": "model",
        "created": started,
        "owned_by": "cat-tts",
        "max_depth": models.max_depth,
        "sample_rate": models.sample_rate,
        "max_prompt_seconds": models.max_prompt_seconds,
    }

    @router.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @router.get("/v1/models/{name:path}")
    async def get_model(name: str) -> dict[str, Any]:
        check_model(name, MODEL)
        return model

    @router.get("/healthz")
    async def health() -> dict[str, str]:
        if service.engine.fault is not None:
            raise api_error(EngineDead())
        return {"status": "ok"}

    @router.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    return router


def _unknown_routes(app: FastAPI) -> APIRouter:
    """Answer all other addresses under /v1, so that a page mounted at the root does not answer for them."""
    router = APIRouter()
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]

    @router.api_route("/v1", methods=methods)
    @router.api_route("/v1/{rest:path}", methods=methods)
    async def refuse(request: Request) -> None:
        others = (route for route in app.routes if route.matches(request.scope)[0] is Match.PARTIAL)
        raise HTTPException(404 if next(others, None) is None else 405)

    return router
