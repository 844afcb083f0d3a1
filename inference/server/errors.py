"""The errors of the API, in the JSON shape that OpenAI's clients read."""

import json
import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from inference.engine.engine import EngineBusy, EngineDead
from inference.synthesis.attempts import SynthesisFailed
from inference.synthesis.service import ServiceClosed

RETRY_SECONDS = 5
"""The seconds after which a client shall try a full queue again."""
MAX_MESSAGE_CHARACTERS = 300
"""A longer message is cut: a bad value may be of any length."""

logger = logging.getLogger(__name__)


class ApiError(Exception):
    """Ends a request with a status and a line for the client.

    Args:
        status: The HTTP status.
        message: What is wrong, and how to cure it.
        code: A short name of the error that programs can compare.
        param: The parameter of the request that is wrong, if it is one.
        retry_seconds: When the client may try again; becomes the header Retry-After.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry_seconds = status, code, param, retry_seconds

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the response."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error"
        message = str(self)
        if len(message) > MAX_MESSAGE_CHARACTERS:
            message = message[:MAX_MESSAGE_CHARACTERS] + "..."
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> "ErrorResponse":
        """The HTTP response that carries the error."""
        return ErrorResponse(self)


class ErrorResponse(Response):
    """The response of an error, in pure ASCII, since a message may quote what no encoding can hold.

    Its `code` is for the metrics.
    """

    media_type = "application/json"

    def __init__(self, error: ApiError) -> None:
        retry = error.retry_seconds
        headers = {} if retry is None else {"Retry-After": str(max(1, math.ceil(retry)))}
        if error.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        super().__init__(json.dumps(error.body).encode(), error.status, headers)
        self.code = error.code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, and leave the code in the scope for the metrics."""
        scope["error_code"] = self.code
        await super().__call__(scope, receive, send)


def api_error(error: Exception, param: str | None = None) -> ApiError:
    """Convert any exception into the error that the client sees.

    An exception that was not foreseen is logged, and its text is not shown.

    Args:
        error: The exception.
        param: The parameter of the request that a ValueError is about, if it is known.

    Returns:
        The error to raise or to send.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, EngineBusy):
        return ApiError(429, str(error), code="queue_full", retry_seconds=RETRY_SECONDS)
    if isinstance(error, ServiceClosed):
        message = "the server is shutting down: try again later"
        return ApiError(503, message, code="shutting_down", retry_seconds=RETRY_SECONDS)
    if isinstance(error, EngineDead):
        return ApiError(503, "the model has stopped for good: restart the server", code="engine_dead")
    if isinstance(error, SynthesisFailed):
        return ApiError(500, str(error), code="synthesis_failed")
    if isinstance(error, ValueError):
        return ApiError(400, str(error), code="invalid_value", param=param)
    logger.error("a request failed", exc_info=error)
    return ApiError(500, "the server failed; its log says more", code="internal_error")


def add_handlers(app: FastAPI) -> None:
    """Make the app answer every error in the shape of `ApiError`."""

    async def api(_: Request, error: Exception) -> Response:
        return api_error(error).response

    async def validation(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        path = [str(part) for part in first["loc"] if part != "body"]
        if first["type"] == "json_invalid":
            return ApiError(400, "the body is not valid JSON", code="invalid_json").response
        missing = first["type"] == "missing"
        param = ".".join(path[:1]) or None
        message = f"{param or 'body'}: {first['msg']}"
        code = "missing_required_parameter" if missing else "invalid_value"
        return ApiError(400, message, code=code, param=param).response

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        codes = {404: "not_found", 405: "method_not_allowed"}
        code = codes.get(error.status_code, "invalid_request")
        return ApiError(error.status_code, str(error.detail), code=code).response

    app.add_exception_handler(ApiError, api)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, api)
