"""A client's live stream, between the engine's thread and asyncio."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tdt_jax.inference.end_of_turn import EndOfTurn
from tdt_jax.inference.stream_words import StreamEvent
from tdt_jax.inference.streams import LiveStream
from tdt_jax.serving.windowed_streams import WindowedStream

AHEAD = 10.0  # seconds that a client may send ahead of what is decoded; then it has to wait
MOST_UPDATES = 10_000  # that may wait for a client that does not read

AnyStream = LiveStream | WindowedStream


class Update(NamedTuple):
    """What a step has decoded of a stream."""

    events: list[StreamEvent]
    pending: str
    seconds: float  # decoded
    ended: bool = False  # a flush or the end of the stream has been reached
    closed: bool = False  # nothing follows
    failed: str = ""  # why the server gives the stream up


class Live:
    """A live stream. All methods but `deliver` are for the event loop's thread.

    Attributes:
      stream: whose audio and words pass through.
      pushed: seconds of audio received.
    """

    def __init__(
        self,
        stream: AnyStream,
        loop: asyncio.AbstractEventLoop,
        wake: Callable[[], None],
        sample_rate: int,
    ):
        self.stream, self._loop, self._wake, self._rate = stream, loop, wake, sample_rate
        self._updates: deque[Update] = deque()
        self._changed, self._room = asyncio.Event(), asyncio.Event()
        self._decoded = 0.0
        self._num_ended = 0  # as of the engine's last look
        self.pushed = 0.0

    @property
    def language(self) -> str | None:
        return self.stream.language

    def set_rule(self, rule: EndOfTurn | None) -> None:
        """Sets the rule by which a turn is over."""
        self.stream.end_of_turn = rule

    async def push(self, samples: np.ndarray) -> None:
        """Takes samples [S]; waits while the client is far ahead of what is decoded."""
        if not len(samples):
            return
        self.stream.push(samples)
        self.pushed += len(samples) / self._rate
        self._wake()
        while self.pushed - self._decoded > AHEAD and self.stream.is_open:
            self._room.clear()
            await self._room.wait()

    def flush(self) -> None:
        """Makes what has come certain; an update with `ended` follows."""
        self.stream.flush()
        self._wake()

    def finish(self) -> None:
        """Ends the stream; an update with `closed` follows."""
        self.stream.finish()
        self._wake()

    def close(self) -> None:
        """Gives the stream up; its slot is free at once."""
        self.stream.close()

    async def update(self) -> Update:
        """Returns the next update."""
        while not self._updates:
            self._changed.clear()
            await self._changed.wait()
        return self._updates.popleft()

    def deliver(self, events: list[StreamEvent]) -> None:
        """Takes what the engine's thread has decoded of the stream."""
        stream = self.stream
        ended, self._num_ended = stream.num_ended > self._num_ended, stream.num_ended
        self._post(Update(events, stream.pending, stream.seconds, ended, not stream.is_open))

    def fail(self, reason: str) -> None:
        """Gives the stream up on the engine's thread."""
        self.stream.close()
        self._post(Update([], "", self.stream.seconds, closed=True, failed=reason))

    def _post(self, update: Update) -> None:
        self._loop.call_soon_threadsafe(self._take, update)

    def _take(self, update: Update) -> None:
        self._decoded = update.seconds
        if len(self._updates) < MOST_UPDATES:
            self._updates.append(update)
        elif not self._updates[-1].failed:
            self.close()
            self._updates.append(Update([], "", 0.0, closed=True, failed="results are not read"))
        self._changed.set()
        self._room.set()
