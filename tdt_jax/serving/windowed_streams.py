"""Live streams of a model that is not causal: each encodes windows of its own, one by one.

The programs are those of `tdt_jax.Stream`, compiled once for all. Beside causal models, whose
streams are rows of one step, this is slow: each stream pays for itself.
"""

import logging
import threading
from collections import deque

import numpy as np

from tdt_jax.inference.end_of_turn import EndOfTurn
from tdt_jax.inference.stream_words import StreamEvent
from tdt_jax.inference.streaming import Stream
from tdt_jax.recogniser import Recogniser

log = logging.getLogger(__name__)

FLUSH, END = "flush", "end"


class WindowedStream:
    """A stream with the methods of `tdt_jax.inference.streams.LiveStream` that a server needs."""

    def __init__(self, streams: "WindowedStreams"):
        self._streams = streams
        self._stream: Stream | None = None  # until the engine's thread makes it
        self._waiting: deque[np.ndarray | str] = deque()
        self.num_ended = 0
        self.is_open = True
        self.has_failed = False
        self.end_of_turn: EndOfTurn | None = None

    @property
    def pending(self) -> str:
        return self._stream.pending if self._stream else ""

    @property
    def seconds(self) -> float:
        return self._stream.seconds if self._stream else 0.0

    @property
    def language(self) -> str | None:
        return self._stream.language if self._stream else None

    def push(self, samples: np.ndarray) -> None:
        """Takes samples [S]."""
        self._waiting.append(samples)

    def flush(self) -> None:
        """Ends the speaker's turn after the samples pushed so far."""
        self._waiting.append(FLUSH)

    def finish(self) -> None:
        """Ends the stream after the samples pushed so far."""
        self._waiting.append(END)

    def close(self) -> None:
        """Gives up the stream."""
        self.is_open = False
        self._streams.remove(self)

    def step(self, recogniser: Recogniser) -> list[StreamEvent]:
        """Decodes up to the next end, or all that has come."""
        if self._stream is None:
            self._stream = Stream(recogniser)
        self._stream.end_of_turn = self.end_of_turn
        parts, end = [], None
        for _ in range(len(self._waiting)):  # more may come meanwhile
            each = self._waiting.popleft()
            if isinstance(each, str):
                end = each
                break
            parts.append(each)
        events = self._stream.push(np.concatenate(parts)) if parts else []
        if end is not None:
            is_end = end == END
            events += self._stream.finish() if is_end else self._stream.flush()
            self.num_ended += 1
            if is_end:
                self.close()
        return events

    @property
    def is_ready(self) -> bool:
        return bool(self._waiting)


class WindowedStreams:
    """Streams as `tdt_jax.Streams` has them, of any transducer."""

    def __init__(self, recogniser: Recogniser, *, slots: int):
        self._recogniser, self._slots = recogniser, slots
        self._streams: list[WindowedStream] = []
        self._lock = threading.Lock()  # of the list

    def warm_up(self) -> None:
        """Compiles the program of a window."""
        Stream(self._recogniser).warm_up()

    def open(self) -> WindowedStream:
        """Returns a new stream. Raises ValueError if all slots are taken."""
        with self._lock:
            if len(self._streams) >= self._slots:
                raise ValueError(f"all {self._slots} slots are taken")
            stream = WindowedStream(self)
            self._streams.append(stream)
            return stream

    def step(self) -> list[tuple[WindowedStream, list[StreamEvent]]]:
        """Decodes what has come of every stream. One that fails is closed; the others go on."""
        with self._lock:
            ready = [stream for stream in self._streams if stream.is_ready]
        stepped: list[tuple[WindowedStream, list[StreamEvent]]] = []
        for stream in ready:
            if not stream.is_open:
                continue
            try:
                stepped.append((stream, stream.step(self._recogniser)))
            except Exception:
                log.exception("a live stream has failed")
                stream.has_failed = True
                stream.close()
                stepped.append((stream, []))
        return stepped

    def remove(self, stream: WindowedStream) -> None:
        """Frees the slot of a stream."""
        with self._lock:
            if stream in self._streams:
                self._streams.remove(stream)
