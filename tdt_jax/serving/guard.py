"""Keys, origins, the number of requests, and the size and speed of their bodies."""

import asyncio
import hashlib
import hmac
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tdt_jax.serving import errors
from tdt_jax.serving.service import Service

OPENAI_KEY = "openai-insecure-api-key."  # before the key, among a browser's subprotocols
SCHEMES = ("bearer", "token")
PRIVATE = ("/v1/", "/metrics")  # paths that need a key
ALWAYS = ("/health", "/ready", "/metrics")  # paths that are answered until the end
PATHS = ("/v1/audio/transcriptions", "/v1/models", *ALWAYS, "/")  # in metrics
BODY_IDLES = 10  # a body may take so many times `idle`


class Guard:
    """ASGI middleware: refuses what a server does not allow, before anything is read."""

    def __init__(self, app: ASGIApp, service: Service):
        self._app, self._service = app, service
        self._digests = [_digest(key) for key in service.settings.keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        if refusal := self._refusal(scope, headers):
            status, message, code = refusal
            answer = errors.response(message, status, code=code)
            return await _refuse(answer, scope, receive, send)
        if scope["type"] == "websocket":
            return await self._app(scope, receive, send)
        await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, start, status = self._service, time.perf_counter(), 500
        has_body = scope["method"] not in ("GET", "HEAD", "OPTIONS")

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        service.num_requests += has_body
        try:
            await self._app(scope, self._limited(receive) if has_body else receive, noting)
        finally:
            service.num_requests -= has_body
            path = scope["path"] if scope["path"] in PATHS else "other"
            service.metrics.requests.labels(path, str(status)).inc()
            service.metrics.request_seconds.labels(path).observe(time.perf_counter() - start)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str, str] | None:
        """Returns status, message and code for a request that is refused."""
        settings, path = self._service.settings, scope["path"]
        method = scope.get("method", "GET")
        if not self._is_own(headers):
            return 403, "requests from this origin are not allowed", "origin_not_allowed"
        if path.startswith(PRIVATE) and method != "OPTIONS" and not self._has_key(scope, headers):
            return 401, "the API key is missing or wrong", "invalid_api_key"
        if self._service.is_draining and path not in ALWAYS:
            return 503, "the server is about to end", "server_ending"
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            return 400, "the content length is no number", "bad_content_length"
        if len(length) > 18 or int(length) > settings.max_bytes:
            return 413, f"a request may have {settings.max_bytes} bytes", "too_large"
        has_body = method not in ("GET", "HEAD", "OPTIONS")
        if has_body and self._service.num_requests >= settings.max_requests:
            return 503, "the server is busy", "server_busy"
        return None

    def _is_own(self, headers: Headers) -> bool:
        """Returns whether a request comes from the server's own page, an allowed one, or none."""
        origin = headers.get("origin")
        if origin is None or {origin, "*"} & {*self._service.settings.origins}:
            return True
        return urlsplit(origin).netloc == headers.get("host")

    def _has_key(self, scope: Scope, headers: Headers) -> bool:
        if not self._digests:
            return True
        scheme, _, key = headers.get("authorization", "").partition(" ")
        keys = [key.strip()] if scheme.lower() in SCHEMES else []
        if scope["type"] == "websocket":
            keys += keys_of(scope.get("subprotocols", []))
        # every key is compared with every other, in constant time
        digests = [_digest(key) for key in keys]
        found = [hmac.compare_digest(a, b) for a in digests for b in self._digests]
        return any(found)

    def _limited(self, receive: Receive) -> Receive:
        """Returns `receive` with limits on the bytes of a body, and on the time it takes."""
        settings, size, is_whole = self._service.settings, 0, False
        end = time.monotonic() + BODY_IDLES * settings.idle

        async def limited() -> Message:
            nonlocal size, is_whole
            if is_whole:
                return await receive()
            left = min(settings.idle, end - time.monotonic())
            try:
                message = await asyncio.wait_for(receive(), left)
            except TimeoutError:
                raise HTTPException(408, "the body has not come in time") from None
            size += len(message.get("body", b""))
            if size > settings.max_bytes:
                raise HTTPException(413, f"a request may have {settings.max_bytes} bytes")
            is_whole = not message.get("more_body", False)
            return message

        return limited


def keys_of(subprotocols: list[str]) -> list[str]:
    """Returns the keys among a WebSocket's subprotocols, as clients in browsers send them.

    OpenAI's send the key behind a prefix, Deepgram's after "token" or "bearer".
    """
    keys = [each.removeprefix(OPENAI_KEY) for each in subprotocols if each.startswith(OPENAI_KEY)]
    if len(subprotocols) == 2 and subprotocols[0].lower() in SCHEMES:
        keys.append(subprotocols[1])
    return keys


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


async def _refuse(answer, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await answer(scope, receive, send)
    elif "websocket.http.response" in scope.get("extensions", {}):
        await receive()  # websocket.connect
        await answer(scope, receive, send)
    else:
        await receive()
        await send({"type": "websocket.close", "code": 1008})
