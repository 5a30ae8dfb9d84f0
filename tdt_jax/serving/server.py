"""Runs the application with uvicorn, and ends it in good order."""

import asyncio
import logging
from types import FrameType

import uvicorn

from tdt_jax.serving.app import create_app
from tdt_jax.serving.engine import Engine
from tdt_jax.serving.service import Service
from tdt_jax.serving.settings import Settings

MESSAGE_BYTES = 4 << 20  # of a WebSocket
MESSAGES = 8  # that wait, of a client that sends faster than it is served
LAST_SECONDS = 5  # for connections to close, after the grace time


class _Server(uvicorn.Server):
    """On SIGTERM or Ctrl-C, finishes what has been begun; a second one ends at once."""

    def __init__(self, config: uvicorn.Config, service: Service):
        super().__init__(config)
        self._service, self._draining = service, None

    async def startup(self, sockets: list | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.is_draining or not self.started:
            self.should_exit = self.force_exit = True
        else:
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        async def drain() -> None:
            await self._service.drain()
            self.should_exit = True

        self._draining = asyncio.create_task(drain())


def serve(engine: Engine, settings: Settings) -> int:
    """Serves until a signal ends it. Returns the exit code: 0, or 1 if the device has failed."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # or a client may fill the log
    app = create_app(engine, settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="asyncio",  # uvloop starts processes by a fork that JAX's threads do not survive
        access_log=False,  # it would have the clients' queries
        log_level="warning",
        server_header=False,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.private_key,
        ws_max_size=MESSAGE_BYTES,
        ws_max_queue=MESSAGES,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=LAST_SECONDS,
    )
    _Server(config, app.state.service).run()
    return 1 if engine.failure else 0
