"""Engine: the one thread that owns the device.

It decodes a step of all live streams that are ready, and between those steps a batch of recordings.
asyncio opens, feeds and closes streams, and submits and cancels recordings; it never waits for the
device.
"""

import asyncio
import gc
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import numpy as np

from tdt_jax.inference.shared_batches import Job, SharedBatches
from tdt_jax.inference.stream_words import StreamEvent
from tdt_jax.inference.streams import Streams
from tdt_jax.recogniser import Recogniser
from tdt_jax.serving.errors import Busy
from tdt_jax.serving.live import AnyStream, Live
from tdt_jax.serving.metrics import Metrics
from tdt_jax.serving.settings import Settings
from tdt_jax.serving.windowed_streams import WindowedStream, WindowedStreams

log = logging.getLogger(__name__)

LIVE_SECONDS = 0.1  # after which a batch has its turn, however many live streams are ready
SHORT = 15.0  # seconds of audio that are cut without a thread, in some milliseconds
FAILED = "the device has failed"
LOOK = 0.5  # seconds between two looks whether a client is still there


class _Pool(NamedTuple):
    """Live streams with one state on the device; a step that fails loses all of them."""

    streams: Streams | WindowedStreams
    lives: dict[AnyStream, Live]


class DeviceError(Exception):
    """The device has failed at what a client asked for."""


class Engine:
    """Transcribes for many clients at once.

    Attributes:
      recogniser: the model that is served.
      is_ready: whether everything is compiled.
      is_live: whether the model can stream.
      failure: why the thread has ended, if it has.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        settings: Settings,
        metrics: Metrics,
        *,
        batch_seconds: float | None = None,
        piece_seconds: float | None = None,
        decoder: str = "",
    ):
        """Compiles nothing yet; the options are those of `tdt_jax.transcribe`."""
        self.recogniser, self.metrics = recogniser, metrics
        self.is_live = recogniser.config.predictor is not None
        self.is_ready, self.failure = False, ""
        self._settings, self._rate = settings, recogniser.config.features.sample_rate
        self._batches = SharedBatches(
            recogniser, batch_seconds=batch_seconds, piece_seconds=piece_seconds, decoder=decoder
        )
        self._pool = self._new_pool() if self.is_live else None
        self._inbox: queue.SimpleQueue[tuple[Callable[[Job], None], Job]] = queue.SimpleQueue()
        self._changed: dict[Job, asyncio.Event] = {}  # of jobs that a client waits for
        self._waiting = 0  # samples of these
        self._wake, self._stopping = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        metrics.live_slots.set(settings.streams if self.is_live else 0)

    def start(self) -> None:
        """Starts the thread, on the running event loop; it compiles all programs first."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after what it is at."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def open_live(self) -> Live:
        """Returns a new live stream. Raises Busy if all slots are taken."""
        pool = self._pool
        if pool is None or not self.is_ready:
            raise Busy("this model cannot stream" if self.is_ready else "the model is being loaded")
        try:
            stream = pool.streams.open()
        except ValueError:
            raise Busy(f"all {self._settings.streams} live streams are taken") from None
        live = Live(stream, self._loop, self._wake.set, self._rate)
        pool.lives[stream] = live
        if pool is not self._pool:  # it has failed meanwhile
            raise Busy(FAILED)
        self.metrics.live_streams.inc()
        return live

    def close_live(self, live: Live) -> None:
        """Gives a live stream up; its slot is free at once."""
        live.close()
        if self._pool:
            self._pool.lives.pop(live.stream, None)
        self.metrics.live_streams.dec()
        self.metrics.audio_seconds.labels("live").inc(live.pushed)

    async def decode(
        self, samples: np.ndarray, is_gone: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[Job]:
        """Transcribes samples [S]: yields their job whenever more of it is decoded, up to its end.

        If the client `is_gone`, or the caller leaves the loop, the rest is not decoded.

        Raises: Busy if too much audio waits, DeviceError if the device fails.
        """
        num_samples = len(samples)
        limit = self._settings.max_waiting * self._rate
        if self._waiting and self._waiting + num_samples > limit:
            raise Busy("too much audio is waiting to be transcribed")
        self._count_waiting(num_samples)
        job, changed = None, asyncio.Event()
        try:
            if num_samples <= SHORT * self._rate:
                job = self._batches.cut(samples)
            else:
                job = await asyncio.to_thread(self._batches.cut, samples)
            del samples
            self._changed[job] = changed
            self._send(self._batches.add, job)
            is_done = False
            while not is_done and not await is_gone():
                try:
                    await asyncio.wait_for(changed.wait(), LOOK)
                except TimeoutError:
                    continue
                changed.clear()
                if job.error:
                    raise DeviceError from job.error
                is_done = job.is_done
                yield job
        finally:
            self._count_waiting(-num_samples)
            if job and not job.is_done:
                self._send(self._batches.remove, job)
            if job:
                self._changed.pop(job, None)
                self.metrics.audio_seconds.labels("batch").inc(job.seconds)

    @property
    def batches(self) -> SharedBatches:
        return self._batches

    def _count_waiting(self, num_samples: int) -> None:
        self._waiting += num_samples
        self.metrics.waiting_seconds.set(self._waiting / self._rate)

    def _send(self, action: Callable[[Job], None], job: Job) -> None:
        self._inbox.put((action, job))
        self._wake.set()

    def _new_pool(self) -> _Pool:
        kind = Streams if self.recogniser.config.encoder.is_causal else WindowedStreams
        return _Pool(kind(self.recogniser, slots=self._settings.streams), {})

    def _run(self) -> None:
        try:
            self._batches.warm_up(self._settings.max_seconds)
            if self._pool:
                self._pool.streams.warm_up()
            gc.collect()
            gc.freeze()  # what is there stays: collecting it again would delay live streams
            self.is_ready = True
            while not self._stopping:
                self._wake.clear()
                while not self._inbox.empty():
                    action, job = self._inbox.get()
                    action(job)
                stepped = self._step_streams()
                if not self._batches.is_idle:
                    self._step_batches()
                elif not stepped:
                    self._wake.wait()
        except Exception as error:
            log.exception("the engine has ended")
            self.failure = type(error).__name__
            self.is_ready = False

    def _step_streams(self) -> bool:
        """Decodes what the live streams have, for LIVE_SECONDS; returns whether there was any."""
        start, worked = time.perf_counter(), False
        while self._pool and time.perf_counter() < start + LIVE_SECONDS:
            before = time.perf_counter()
            try:
                stepped: list[tuple[AnyStream, list[StreamEvent]]] = [*self._pool.streams.step()]
            except Exception:
                self._fail_streams(self._pool)
                return True
            if not stepped:
                break
            worked = True
            self.metrics.step_seconds.observe(time.perf_counter() - before)
            self.metrics.step_streams.observe(len(stepped))
            for stream, events in stepped:
                if isinstance(stream, WindowedStream) and stream.has_failed:
                    self.metrics.failures.inc()
                    if live := self._pool.lives.get(stream):
                        live.fail(FAILED)
                elif live := self._pool.lives.get(stream):
                    live.deliver(events)
        return worked

    def _fail_streams(self, failed: _Pool) -> None:
        """Gives all live streams up: a step has failed, and their state is lost with it."""
        log.exception("a step of the live streams has failed")
        self.metrics.failures.inc()
        self._pool = self._new_pool()  # first, as clients come meanwhile
        for live in list(failed.lives.values()):
            live.fail(FAILED)

    def _step_batches(self) -> None:
        rows, jobs = self._batches.step()
        if rows:
            self.metrics.batch_rows.observe(rows)
        for job in jobs:
            if job.error:
                log.error("a batch has failed: %s", type(job.error).__name__)
                self.metrics.failures.inc()
            if changed := self._changed.get(job):
                self._loop.call_soon_threadsafe(changed.set)
