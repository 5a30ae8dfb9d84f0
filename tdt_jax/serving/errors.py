"""Errors in OpenAI's form."""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

log = logging.getLogger(__name__)

TYPES = {401: "authentication_error", 429: "rate_limit_error"}
RETRY_SECONDS = "1"  # after which a client may try again


class BadRequest(Exception):
    """A request that cannot be answered: its status, the reason, and the field that is wrong."""

    def __init__(
        self, message: str, param: str | None = None, *, code: str = "", status: int = 400
    ):
        super().__init__(message)
        self.param, self.code, self.status = param, code or None, status


class Busy(Exception):
    """The server has no room for another stream or recording; the client may try again."""


def body(
    message: str, status: int, param: str | None = None, code: str | None = None
) -> dict[str, dict[str, str | None]]:
    """Returns the body of an error."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def response(
    message: str, status: int, param: str | None = None, code: str | None = None
) -> JSONResponse:
    """Returns the response of an error; 429 and 503 say when to try again."""
    headers = {"Retry-After": RETRY_SECONDS} if status in (429, 503) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body(message, status, param, code), status, headers)


def add_handlers(app: FastAPI) -> None:
    """Makes every error of the application one of OpenAI's form."""

    @app.exception_handler(BadRequest)
    async def bad_request(request: Request, error: BadRequest) -> JSONResponse:
        return response(str(error), error.status, error.param, error.code)

    @app.exception_handler(Busy)
    async def busy(request: Request, error: Busy) -> JSONResponse:
        return response(str(error), 503, code="server_busy")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        answer = response(str(error.detail), error.status_code)
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        param = str(first["loc"][-1]) if first["loc"] else None
        return response(f"{param}: {first['msg']}", 400, param)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("%s in %s", type(error).__name__, request.url.path)
        return response("the server failed to answer this request", 500)
