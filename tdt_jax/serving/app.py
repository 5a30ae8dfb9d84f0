"""The FastAPI application of a server."""

import contextlib
from collections.abc import AsyncIterator
from importlib.resources import files

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from tdt_jax import __version__
from tdt_jax.serving import deepgram, errors, openai_realtime, openai_rest
from tdt_jax.serving.engine import Engine
from tdt_jax.serving.guard import Guard
from tdt_jax.serving.service import Service
from tdt_jax.serving.settings import Settings
from tdt_jax.serving.uploads import Uploads

CONTENT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; "
    "connect-src 'self' ws: wss:; media-src blob:; img-src data: blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def create_app(engine: Engine, settings: Settings) -> FastAPI:
    """Returns the application; `app.state.service` is its Service.

    It starts the engine and the processes that decode uploads when it starts, and ends them.
    """
    uploads = Uploads(settings, engine.recogniser.config.features.sample_rate)
    service = Service(settings, engine, uploads, engine.metrics)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        await uploads.start()
        yield
        service.closing.set()
        await uploads.stop()
        engine.stop()

    app = FastAPI(title="tdt-jax serve", version=__version__, lifespan=lifespan)
    app.state.service = service
    errors.add_handlers(app)
    app.include_router(openai_rest.router(service))
    app.include_router(openai_realtime.router(service))
    app.include_router(deepgram.router(service))
    _add_pages(app, service)
    app.add_middleware(Guard, service=service)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
    return app


def _add_pages(app: FastAPI, service: Service) -> None:
    page = files("tdt_jax.serving").joinpath("page.html").read_text(encoding="utf-8")
    headers = {"Content-Security-Policy": CONTENT_POLICY, "X-Content-Type-Options": "nosniff"}

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers=headers)

    @app.get("/health", tags=["state"])
    async def health() -> JSONResponse:
        """Says whether the server works: 200, or 503 if its device has failed."""
        failure = service.engine.failure
        return JSONResponse({"status": failure or "ok"}, 503 if failure else 200)

    @app.get("/ready", tags=["state"])
    async def ready() -> JSONResponse:
        """Says whether to send requests: 200 when the model is compiled, until the server ends."""
        is_ready = service.engine.is_ready and not service.is_draining
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    @app.get("/metrics", tags=["state"])
    async def metrics() -> Response:
        """Returns counters for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)
