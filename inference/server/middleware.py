"""The checks that every request for the API passes first: key, origin, rate, size and speed."""

import hmac
import secrets
from collections.abc import Collection
from contextlib import nullcontext

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.server.errors import ApiError
from inference.server.limits import Limits, RateLimiter
from inference.server.metrics import ServerMetrics

PROTECTED_PATHS = ("/v1/", "/metrics")
"""Paths to which the checks apply. The rest, such as a mounted page, is passed on unchecked."""
MAX_UPLOADS = 4
"""Uploads that are held in memory at once; others wait for their turn."""


class ApiMiddleware:
    """Checks Bearer key, origin, rate, size and speed of a request, in this order.

    No more of a body is read than is allowed.

    A page of another site may make a browser send a form anywhere, also to a server that only listens to
    this machine. Browsers say so in the header Origin; only `origins` and the server's own may.

    Args:
        app: The application behind the checks.
        limits: What a request may cost.
        metrics: Count every response.
        api_key: The key that clients must send; None lets everybody in.
        origins: Origins of the web pages that may use the API from a browser; "*" stands for all.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        metrics: ServerMetrics,
        api_key: str | None = None,
        origins: Collection[str] = (),
    ) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self.api_key, self.origins = api_key, origins
        self._rate_limiter = RateLimiter(limits.rate_per_minute)
        self._uploads = anyio.CapacityLimiter(MAX_UPLOADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request, and pass it on or answer it with an error."""
        path = scope["path"].removeprefix(scope.get("root_path", "")) if scope["type"] == "http" else ""
        if not path.startswith(PROTECTED_PATHS):
            await self.app(scope, receive, send)
            return
        request_id = secrets.token_hex(16)

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
                self.metrics.count_response(scope, message["status"])
            await send(message)

        upload = path.endswith("/voices")
        try:
            self._check_access(scope)
            async with self._uploads if upload else nullcontext():
                body = await self._body(scope, receive, upload)
                if body is not None:
                    await self.app(scope, _replay(body, receive), send_counted)
        except ApiError as error:
            await error.response(scope, receive, send_counted)

    def _check_access(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self.api_key is not None:
            kind, _, key = headers.get("Authorization", "").partition(" ")
            sent_key = key.strip() if kind.lower() == "bearer" else ""
            if not hmac.compare_digest(sent_key.encode("utf-8", "replace"), self.api_key.encode()):
                raise ApiError(401, "send the API key as a Bearer token", code="invalid_api_key")
        origin = headers.get("Origin")
        same_origin = origin is None or origin.partition("://")[2] == headers.get("Host")
        if not same_origin and not {origin, "*"} & set(self.origins):
            message = f"pages of {origin} may not use this server: see --cors-origins"
            raise ApiError(403, message, code="origin_not_allowed")
        client = scope["client"][0] if scope.get("client") else ""
        wait = self._rate_limiter.wait_seconds(client)
        if wait:
            message = f"more than {self.limits.rate_per_minute:g} requests a minute: slow down"
            raise ApiError(429, message, code="rate_limit_exceeded", retry_seconds=wait)

    async def _body(self, scope: Scope, receive: Receive, upload: bool) -> bytes | None:
        """Read the whole body; None when the client left."""
        max_bytes = self.limits.max_upload_bytes if upload else self.limits.max_body_bytes
        length = Headers(scope=scope).get("Content-Length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) > max_bytes:
            raise _too_large(max_bytes)
        with anyio.move_on_after(self.limits.body_seconds):
            return await _read(receive, max_bytes)
        text = f"the request did not arrive in {self.limits.body_seconds:g} s"
        raise ApiError(408, text, code="request_timeout")


async def _read(receive: Receive, max_bytes: int) -> bytes | None:
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(body)


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(
        413, f"the body is larger than {max_bytes} bytes, the most there may be", code="body_too_large"
    )


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that first gives the body, which was read already."""
    bodies = [body]

    async def replay() -> Message:
        if bodies:
            return {"type": "http.request", "body": bodies.pop(), "more_body": False}
        return await receive()

    return replay
