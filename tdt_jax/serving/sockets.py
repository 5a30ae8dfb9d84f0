"""A WebSocket that speaks one of the live protocols: reads, decodes, writes, and ends."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from tdt_jax.serving import errors
from tdt_jax.serving.errors import BadRequest, Busy
from tdt_jax.serving.live import Live, Update
from tdt_jax.serving.service import Service

log = logging.getLogger(__name__)

MOST_MISTAKES = 20  # after which a client is sent away
LAST_SECONDS = 3.0  # for a stream's last words when the server ends
NORMAL, POLICY, FAILED, RESTART = 1000, 1008, 1011, 1012  # close codes

Event = dict[str, Any]


class Talk(Protocol):
    """One client's conversation in a protocol: messages in, events out."""

    def start(self) -> list[Event]:
        """Returns the events at the beginning."""
        ...

    async def take(self, message: str | bytes) -> list[Event]:
        """Takes a message of the client's; returns the answers. Raises BadRequest."""
        ...

    def update(self, update: Update) -> list[Event]:
        """Returns the events for what has been decoded."""
        ...

    def error(self, error: BadRequest) -> Event:
        """Returns the event that tells a client of its mistake."""
        ...

    def last(self) -> list[Event]:
        """Returns the events at the end, after the last update."""
        ...

    @property
    def is_finished(self) -> bool:
        """Whether the client has ended the stream."""
        ...


class _Ended(Exception):
    """The conversation ends, with a close code and the reason."""

    def __init__(self, code: int, reason: str = ""):
        super().__init__(reason)
        self.code, self.reason = code, reason


async def converse(
    socket: WebSocket, service: Service, begin: Callable[[Live], Talk], subprotocol: str
) -> None:
    """Holds a conversation from the handshake to the end.

    Args:
      socket: not accepted yet.
      service: of the server.
      begin: starts the conversation; may raise BadRequest.
      subprotocol: that is accepted if the client offers it.
    """
    live = None
    service.num_sockets += 1
    try:
        live = service.engine.open_live()
        talk = begin(live)
        offered = socket.scope.get("subprotocols", [])
        chosen = next((each for each in offered if each.lower() == subprotocol), None)
        await socket.accept(subprotocol=chosen)
        await _converse(socket, service, live, talk)
    except BadRequest as error:
        await _deny(socket, errors.response(str(error), 400, error.param, error.code))
    except Busy as error:
        await _deny(socket, errors.response(str(error), 503, code="server_busy"))
    except (WebSocketDisconnect, ConnectionError):
        pass  # the client has gone
    finally:
        service.num_sockets -= 1
        if live:
            service.engine.close_live(live)


async def _converse(socket: WebSocket, service: Service, live: Live, talk: Talk) -> None:
    idle = service.settings.idle

    async def send(events: list[Event]) -> None:
        for event in events:
            try:
                await asyncio.wait_for(socket.send_json(event), idle)
            except TimeoutError:
                raise _Ended(POLICY, "results are not read") from None

    async def read() -> None:
        mistakes = 0
        while not talk.is_finished:
            try:
                message = await asyncio.wait_for(socket.receive(), idle)
            except TimeoutError:
                raise _Ended(POLICY, f"nothing has come for {idle:g} s") from None
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", NORMAL))
            data = message.get("bytes")
            try:
                await send(await talk.take(message.get("text") or "" if data is None else data))
            except BadRequest as error:
                mistakes += 1
                await send([talk.error(error)])
                if mistakes == MOST_MISTAKES:
                    raise _Ended(POLICY, "too many mistakes") from None
            if live.pushed > service.settings.max_seconds:
                live.finish()
                return

    async def write() -> None:
        while True:
            update = await live.update()
            if update.failed:
                raise _Ended(FAILED, update.failed)
            await send(talk.update(update))
            if update.closed:
                await send(talk.last())
                raise _Ended(NORMAL)

    await send(talk.start())
    reader, writer = asyncio.create_task(read()), asyncio.create_task(write())
    closing = asyncio.create_task(service.closing.wait())
    try:
        await asyncio.wait({reader, writer, closing}, return_when=asyncio.FIRST_COMPLETED)
        if reader.done() and not writer.done() and reader.exception() is None:
            await writer  # the client has ended the stream: the rest is decoded
        elif not reader.done() and not writer.done():
            live.finish()
            await asyncio.wait({writer}, timeout=LAST_SECONDS)
            raise _Ended(RESTART, "the server ends")
        for task in (reader, writer):
            if task.done():
                task.result()
    except _Ended as end:
        await socket.close(end.code, end.reason)
    except (WebSocketDisconnect, ConnectionError):
        raise
    except Exception as error:
        log.error("%s in a live stream", type(error).__name__)
        await socket.close(FAILED, "the server failed")
    finally:
        for task in (reader, writer, closing):
            task.cancel()
        await asyncio.wait({reader, writer, closing})
        for task in (reader, writer):
            if not task.cancelled():
                task.exception()  # of the one that was not looked at


async def _deny(socket: WebSocket, response) -> None:
    try:
        await socket.send_denial_response(response)
    except RuntimeError:  # a server without this extension
        await socket.close(POLICY)
