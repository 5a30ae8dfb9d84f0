"""Decodes the windows of many recordings in batches of few shapes.

    recordings  ->  windows  ->  batches  ->  hypotheses  ->  recordings
                    read ahead   of windows                   each when its last
                    in a thread  of like length               window is decoded

Knows neither files nor models: a recording is an iterable of windows
(`tdt_jax.inference.long_form.cut`), and the decoder is a function. Memory does not grow with the
length or the number of the recordings.
"""

import concurrent.futures
import contextlib
import itertools
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np

from tdt_jax.decoding.hypothesis import Hypothesis, take
from tdt_jax.inference.long_form import Window

AHEAD = 4  # windows read while the batch before is decoded
MULTIPLE = 1280  # samples that a row's length is a multiple of: one frame of 80 ms at 16 kHz
PATIENCE = 4  # a batch starts, full or not, when so many times its rows have come since its first

T = TypeVar("T")


@dataclass(frozen=True)
class Shape:
    """The shape of a batch."""

    seconds: float  # of audio in a row
    rows: int

    def num_samples(self, sample_rate: int) -> int:
        """Returns the samples of a row."""
        return math.ceil(round(self.seconds * sample_rate) / MULTIPLE) * MULTIPLE


def pad_rows(
    samples: Sequence[np.ndarray], shape: Shape, sample_rate: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pads arrays [S] with zeros to one batch of a shape.

    Returns the batch [B, S] float32, and how many samples each row has [B] int32: none in the rows
    beyond the last array.
    """
    batch = np.zeros((shape.rows, shape.num_samples(sample_rate)), np.float32)
    num_samples = np.zeros(shape.rows, np.int32)
    for row, each in enumerate(samples):
        batch[row, : len(each)], num_samples[row] = each, len(each)
    return batch, num_samples


# Takes a batch and its numbers of samples, as of `pad_rows`, and the position of each row's
# recording. Starts to decode it and returns at once; the function that it returns waits for the
# hypothesis, of NumPy's arrays.
StartDecoding = Callable[[np.ndarray, np.ndarray, list[int]], Callable[[], Hypothesis]]


class DecodedWindow(NamedTuple):
    """A window after decoding, without its samples."""

    start: float  # seconds, of its first sample in the recording
    last: float  # seconds, the end of its core (whose words are kept) in the recording
    num_samples: int
    omitted: list[tuple[float, float]]  # as of a Window, in seconds
    hypothesis: Hypothesis  # of one utterance

    def offset(self, seconds: float) -> float:
        """Returns what to add to a time in the window for the time in the recording, in seconds."""
        return self.start + max((size for at, size in self.omitted if at <= seconds), default=0.0)


def decode_recordings(
    recordings: Iterable[Iterable[Window]],
    shapes: Sequence[Shape],
    start_decoding: StartDecoding,
    *,
    sample_rate: int,
    progress: Callable[[float], object] = lambda seconds: None,
) -> Iterator[tuple[int, list[DecodedWindow] | Exception]]:
    """Decodes every window of every recording.

    One batch is decoded while the next is filled. A full batch starts at once; so does one that
    has waited while PATIENCE times the rows of the largest batch came. A batch that is not full
    takes the smallest shape that holds its windows.

    Args:
      recordings: the windows of each, in order. They are iterated over in a thread, a few windows
        ahead.
      shapes: the shapes of batches; the longest holds any window.
      start_decoding: starts to decode a batch.
      sample_rate: of the windows, in Hz.
      progress: called with the seconds of each core that is decoded.

    Yields:
      (position, windows) of each recording, in the order in which their last windows are decoded;
      (position, exception) for one whose iteration raises. The others go on.
    """
    batches = _Batches(shapes, start_decoding, sample_rate)
    unfinished: dict[int, _Recording] = {}

    def collected(decoded: Iterable[tuple[_Task, Hypothesis]]):
        for task, hypothesis in decoded:
            window = task.window
            progress((window.last - window.first) / sample_rate)
            if task.position in unfinished:  # or it has failed further on
                recording = unfinished[task.position]
                recording.decoded[task.number] = without_samples(window, hypothesis, sample_rate)
                yield from finished(task.position)

    def finished(position: int):
        recording = unfinished[position]
        if len(recording.decoded) == recording.num_windows:
            del unfinished[position]
            yield position, [recording.decoded[i] for i in range(len(recording.decoded))]

    with contextlib.closing(read_ahead(_read(recordings), AHEAD)) as items:
        for item in items:
            recording = unfinished.setdefault(item.position, _Recording())
            if isinstance(item, _Task):
                batches.add(item)
            elif item.error is not None:
                del unfinished[item.position]
                yield item.position, item.error
            else:
                recording.num_windows = item.num_windows
                yield from finished(item.position)
            yield from collected(batches.decoded(most_running=1))
    yield from collected(batches.rest())


def read_ahead(items: Iterable[T], count: int) -> Generator[T, None, None]:
    """Yields the same items, while a thread makes the next `count` of them."""
    iterator = iter(items)

    def following() -> list[T]:  # none at the end
        return list(itertools.islice(iterator, 1))

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending = deque(pool.submit(following) for _ in range(count))
        try:
            while item := pending.popleft().result():
                pending.append(pool.submit(following))
                yield item[0]
        finally:
            for each in pending:
                each.cancel()


class _Task(NamedTuple):
    """A window to decode."""

    position: int  # of its recording
    number: int  # of the window in its recording
    window: Window


class _End(NamedTuple):
    """The end of a recording."""

    position: int
    num_windows: int
    error: Exception | None  # that the recording has ended with


@dataclass
class _Recording:
    """What is known of a recording so far."""

    num_windows: int | None = None  # unknown until it is read to its end
    decoded: dict[int, DecodedWindow] = field(default_factory=dict)


def _read(recordings: Iterable[Iterable[Window]]) -> Iterator[_Task | _End]:
    for position, windows in enumerate(recordings):
        number, failure = 0, None
        try:
            for window in windows:
                yield _Task(position, number, window)
                number += 1
        except Exception as error:
            failure = error
        yield _End(position, number, failure)


def without_samples(window: Window, hypothesis: Hypothesis, sample_rate: int) -> DecodedWindow:
    """Returns a window with its hypothesis in place of its samples."""
    return DecodedWindow(
        window.start / sample_rate,
        window.last / sample_rate,
        len(window.samples),
        [(at / sample_rate, size / sample_rate) for at, size in window.omitted],
        hypothesis,
    )


@dataclass
class _Queue:
    """Windows of like length that wait for a batch."""

    shapes: list[Shape]  # of one length, the one with fewest rows first
    tasks: list[_Task] = field(default_factory=list)
    since: int = 0  # the number of windows that had come with the first of these


class _Batches:
    """Sorts windows into batches by their length, and decodes the batches."""

    def __init__(self, shapes: Sequence[Shape], start_decoding: StartDecoding, sample_rate: int):
        by_length: dict[float, list[Shape]] = {}
        for shape in sorted(shapes, key=lambda shape: (shape.seconds, shape.rows)):
            by_length.setdefault(shape.seconds, []).append(shape)
        self._queues = [_Queue(each) for each in by_length.values()]
        self._patience = PATIENCE * max(shape.rows for shape in shapes)
        self._start_decoding = start_decoding
        self._sample_rate = sample_rate
        self._count = 0  # of windows that have come
        self._running: deque[tuple[list[_Task], Callable[[], Hypothesis]]] = deque()

    def add(self, task: _Task) -> None:
        """Puts a window into its batch, and starts the batches that are due."""
        self._count += 1
        queue = next(queue for queue in self._queues if self._holds(queue, task.window))
        if not queue.tasks:
            queue.since = self._count
        queue.tasks.append(task)
        for each in self._queues:
            is_full = len(each.tasks) == each.shapes[-1].rows
            is_late = bool(each.tasks) and self._count - each.since >= self._patience
            if is_full or is_late:
                self._start(each)

    def decoded(self, most_running: int) -> Iterator[tuple[_Task, Hypothesis]]:
        """Waits for the oldest batches until `most_running` are left; yields their windows."""
        while len(self._running) > most_running:
            tasks, wait = self._running.popleft()
            hypothesis = wait()
            for row, task in enumerate(tasks):
                yield task, take(hypothesis, row)

    def rest(self) -> Iterator[tuple[_Task, Hypothesis]]:
        """Decodes all that is left, and yields its windows."""
        for queue in self._queues:
            if queue.tasks:
                self._start(queue)
                yield from self.decoded(most_running=1)
        yield from self.decoded(most_running=0)

    def _holds(self, queue: _Queue, window: Window) -> bool:
        return len(window.samples) <= queue.shapes[0].num_samples(self._sample_rate)

    def _start(self, queue: _Queue) -> None:
        tasks, queue.tasks = queue.tasks, []
        shape = next(shape for shape in queue.shapes if shape.rows >= len(tasks))
        batch = pad_rows([task.window.samples for task in tasks], shape, self._sample_rate)
        positions = [task.position for task in tasks]
        self._running.append((tasks, self._start_decoding(*batch, positions)))
