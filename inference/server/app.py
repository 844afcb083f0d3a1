"""An HTTP server that OpenAI's clients can talk to.

    with Service(synthesizer) as service:
        app = create_server(service, VoiceFolder(synthesizer, Path("voices")))
        uvicorn.run(app)

The event loop never computes: takes are made by the thread of `inference.synthesis.service`, and what else
takes time (encoding a prompt, waiting for a frame, encoding audio) happens in worker threads, of which there
are as many as answers may be open.

A text that is longer than a sentence or two is spoken in pieces, one after the other, in the same answer.

A slow client harms nobody. A piece is made at full speed, and waits in memory: at most the service's
`max_seconds` of it, for each of at most 2 x (slots + waiting) open answers; more requests get 429. Who takes
nothing for `Limits.send_seconds`, or leaves a take untouched for the service's `patience`, is cut off.
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
from inference.server.middleware import Gate
from inference.server.schemas import SpeechRequest, check_model
from inference.server.speech_job import Speech
from inference.server.streaming_response import SpeechResponse, first_chunk, in_thread
from inference.server.voice_store import UnknownVoice, VoiceEntry, VoiceFolder
from inference.synthesis.service import Service
from tokenizer.io.audio import AudioError

MODEL = "cat-tts"
"""What clients call the model, whichever it is."""


def create_server(
    service: Service,
    voices: VoiceFolder,
    *,
    limits: Limits | None = None,
    api_key: str | None = None,
    origins: Collection[str] = (),
) -> FastAPI:
    """The API. A page may be mounted beside it: `api_key`, `limits` and `origins` are not about that.

    `origins` are those of web pages that may use it from a browser; "*" stands for all.
    """
    limits = limits or Limits()
    metrics = ServerMetrics(service.engine, service.synthesizer.tokenizer.config.frame_rate)
    app = FastAPI(title="CAT-TTS", openapi_url=None)
    app.add_middleware(Gate, limits=limits, metrics=metrics, api_key=api_key, origins=origins)
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
    app.include_router(_no_routes(app))
    return app


def _speech_routes(
    service: Service, voices: VoiceFolder, limits: Limits, metrics: ServerMetrics
) -> APIRouter:
    router = APIRouter()
    most_open = 2 * (service.engine.slots + service.engine.waiting)
    workers, answers = CapacityLimiter(most_open), weakref.WeakSet[Speech]()

    def begin(asked: SpeechRequest) -> Speech:
        try:
            voice = voices.voice(asked.voice_name)
        except UnknownVoice as error:
            raise ApiError(404, str(error), code="voice_not_found", param="voice") from None
        try:
            return Speech(service, asked, voice, limits, metrics)
        except ValueError as error:
            raise api_error(error) from None

    @router.post("/v1/audio/speech")
    async def speech(asked: SpeechRequest, request: Request) -> Response:
        asked.check(MODEL, limits)
        if sum(not answer.closed for answer in answers) >= most_open:
            raise ApiError(429, "too many answers are open", code="queue_full", retry_seconds=RETRY_SECONDS)
        answer = await in_thread(partial(begin, asked), workers)
        answers.add(answer)
        try:
            first = await first_chunk(answer, request, limits, workers)
        except BaseException:
            answer.close()
            raise
        if first is None:
            answer.close()
            return Response(status_code=499)  # nobody is there to read it
        return SpeechResponse(answer, asked, first, limits, workers)

    return router


def _voice_routes(voices: VoiceFolder, limits: Limits) -> APIRouter:
    """Under both addresses: the short one, and that of OpenAI's clients."""
    router = APIRouter()
    workers = CapacityLimiter(4)

    async def listed() -> dict[str, Any]:
        entries = await in_thread(voices.entries, workers)
        return {"object": "list", "data": [_voice(entry) for entry in entries]}

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
            return _voice(await in_thread(add, workers))
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
        router.get(path)(listed)
        router.post(path)(create)
        router.delete(path + "/{name:path}")(delete)
    return router


def _voice(entry: VoiceEntry) -> dict[str, Any]:
    return {
        "id": entry.name,
        "object": "audio.voice",
        "name": entry.name,
        "created_at": entry.created,
        "type": "audio_sample",
    }


def _status_routes(service: Service, metrics: ServerMetrics) -> APIRouter:
    router, started, synthesizer = APIRouter(), int(time.time()), service.synthesizer
    model = {
        "id": MODEL,
        "object": "model",
        "created": started,
        "owned_by": "cat-tts",
        "max_depth": synthesizer.max_depth,
        "sample_rate": synthesizer.sample_rate,
        "max_prompt_seconds": synthesizer.max_prompt_seconds,
    }

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @router.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
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


def _no_routes(app: FastAPI) -> APIRouter:
    """All other addresses under /v1, lest a page that is mounted at the root answers for them."""
    router = APIRouter()
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]

    @router.api_route("/v1", methods=methods)
    @router.api_route("/v1/{rest:path}", methods=methods)
    async def nowhere(request: Request) -> None:
        others = (route for route in app.routes if route.matches(request.scope)[0] is Match.PARTIAL)
        raise HTTPException(404 if next(others, None) is None else 405)

    return router
