"""What every request for the API passes first: who, how often, how much, how slowly."""

import hmac
import secrets
from collections.abc import Collection
from contextlib import nullcontext

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.server.errors import ApiError
from inference.server.limits import Buckets, Limits
from inference.server.metrics import ServerMetrics

GUARDED = ("/v1/", "/metrics")
"""Where it applies. The rest, such as a mounted page, is none of its business."""
MOST_UPLOADS = 4
"""That are held in memory at once; others wait for their turn."""


class Gate:
    """Bearer key, origin, rate, size and speed, in this order; no more of a body is read than is allowed.

    A page of another site may make a browser send a form anywhere, also to a server that only listens to
    this machine. Browsers say so in the header Origin; only `origins` and the server's own may.
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
        self._buckets = Buckets(limits.rate_per_minute)
        self._uploads = anyio.CapacityLimiter(MOST_UPLOADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", "")) if scope["type"] == "http" else ""
        if not path.startswith(GUARDED):
            await self.app(scope, receive, send)
            return
        request_id = secrets.token_hex(16)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
                self.metrics.answered(scope, message["status"])
            await send(message)

        upload = path.endswith("/voices")
        try:
            self._admit(scope)
            async with self._uploads if upload else nullcontext():
                body = await self._body(scope, receive, upload)
                if body is not None:
                    await self.app(scope, _replayed(body, receive), noted)
        except ApiError as error:
            await error.response(scope, receive, noted)

    def _admit(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self.api_key is not None:
            kind, _, key = headers.get("Authorization", "").partition(" ")
            given = key.strip() if kind.lower() == "bearer" else ""
            if not hmac.compare_digest(given.encode("utf-8", "replace"), self.api_key.encode()):
                raise ApiError(401, "send the API key as a Bearer token", code="invalid_api_key")
        origin = headers.get("Origin")
        own = origin is None or origin.partition("://")[2] == headers.get("Host")
        if not own and not {origin, "*"} & set(self.origins):
            message = f"pages of {origin} may not use this server: see --cors-origins"
            raise ApiError(403, message, code="origin_not_allowed")
        client = scope["client"][0] if scope.get("client") else ""
        wait = self._buckets.wait_seconds(client)
        if wait:
            message = f"more than {self.limits.rate_per_minute:g} requests a minute: slow down"
            raise ApiError(429, message, code="rate_limit_exceeded", retry_seconds=wait)

    async def _body(self, scope: Scope, receive: Receive, upload: bool) -> bytes | None:
        """All of it; None when the client left."""
        most = self.limits.max_upload_bytes if upload else self.limits.max_body_bytes
        length = Headers(scope=scope).get("Content-Length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) > most:
            raise _too_large(most)
        with anyio.move_on_after(self.limits.body_seconds):
            return await _read(receive, most)
        text = f"the request did not arrive in {self.limits.body_seconds:g} s"
        raise ApiError(408, text, code="request_timeout")


async def _read(receive: Receive, most: int) -> bytes | None:
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


def _too_large(most: int) -> ApiError:
    return ApiError(
        413, f"the body is larger than {most} bytes, the most there may be", code="body_too_large"
    )


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` with the body, which was read already, in front."""
    unread = [body]

    async def replay() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        return await receive()

    return replay
