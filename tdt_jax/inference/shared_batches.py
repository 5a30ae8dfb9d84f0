"""Transcribes recordings that come and go at any time, in shared batches, one batch a call.

`transcription.py` reads its recordings ahead and fills batches; a server has what its clients have
sent so far, and starts a batch as soon as the device is free. Shapes, windows and transcripts are
the same.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tdt_jax.advice.guide import Guide
from tdt_jax.decoding.hypothesis import Hypothesis, take
from tdt_jax.inference.long_form import NEAR, Window
from tdt_jax.inference.scheduler import DecodedWindow, Shape, pad_rows, without_samples
from tdt_jax.inference.transcript import Transcript, Word
from tdt_jax.inference.transcription import (
    build_result,
    cut_windows,
    shapes_on_devices,
    start_decoding,
    warm_up,
)
from tdt_jax.recogniser import Recogniser


@dataclass(eq=False)
class Job:
    """A recording to transcribe.

    Attributes:
      starts: seconds at which its windows start.
      seconds: length of the audio.
      waiting: windows that are not in a batch yet, with their numbers.
      guide: advice for the decoder.
      decoded: windows by their numbers.
      error: why a batch with a window of it failed, if one did.
    """

    starts: list[float]
    seconds: float
    waiting: deque[tuple[int, Window]]
    guide: Guide | None = None
    decoded: dict[int, DecodedWindow] = field(default_factory=dict)
    error: Exception | None = None

    @property
    def is_done(self) -> bool:
        return self.error is not None or len(self.decoded) == len(self.starts)


class _Batch(NamedTuple):
    """Windows that are being decoded."""

    windows: list[tuple[Job, int, Window]]
    wait: Callable[[], Hypothesis]


class SharedBatches:
    """Decodes the windows of many jobs in batches of the fixed shapes.

    A batch has windows of like length, from as many jobs as it has room for, in turn. One thread
    calls `add`, `remove` and `step`.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        *,
        batch_seconds: float | None = None,
        piece_seconds: float | None = None,
        decoder: str = "",
    ):
        """Starts without jobs; arguments as of `tdt_jax.transcribe`."""
        recogniser.check_decoder(decoder)
        self._recogniser, self._decoder = recogniser, decoder
        self._options = dict(batch_seconds=batch_seconds, piece_seconds=piece_seconds)
        self._rate = recogniser.config.features.sample_rate
        shapes = shapes_on_devices(recogniser, batch_seconds, piece_seconds)
        self._shapes = sorted(shapes, key=lambda shape: (shape.seconds, shape.rows))
        self._jobs: deque[Job] = deque()  # that have windows waiting; the first one's turn is next
        self._running: deque[_Batch] = deque()

    def warm_up(self, longest: float) -> None:
        """Compiles the programs of all shapes that recordings of `longest` seconds may need."""
        for _ in warm_up(self._recogniser, decoder=self._decoder, longest=longest, **self._options):
            pass

    def cut(self, samples: np.ndarray, guide: Guide | None = None) -> Job:
        """Returns the job of a recording's samples [S]. Any thread may call this."""
        windows = list(cut_windows([samples], self._shapes[-1].seconds, self._rate))
        starts = [window.start / self._rate for window in windows]
        return Job(starts, len(samples) / self._rate, deque(enumerate(windows)), guide)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to decode."""
        return not self._jobs and not self._running

    def add(self, job: Job) -> None:
        """Takes a job of `cut`."""
        self._jobs.append(job)

    def remove(self, job: Job) -> None:
        """Forgets what is not decoded of a job."""
        job.waiting.clear()
        if job in self._jobs:
            self._jobs.remove(job)

    def step(self) -> tuple[int, list[Job]]:
        """Starts the next batch, if there is one, and waits for the one before.

        Returns: the rows that were filled of the batch that has ended (0: none has), and the jobs
          that have another window decoded, or an error.
        """
        if windows := self._next():
            shape = next(each for each in self._like(windows[0][2]) if each.rows >= len(windows))
            samples = pad_rows([window.samples for _, _, window in windows], shape, self._rate)
            try:
                guides = [job.guide for job, _, _ in windows]
                wait = start_decoding(self._recogniser, self._decoder, *samples, guides)
            except Exception as error:
                return self._failed(windows, error)
            self._running.append(_Batch(windows, wait))
        if not self._running or (windows and len(self._running) == 1 and self._jobs):
            return 0, []
        windows, wait = self._running.popleft()
        try:
            hypothesis = wait()
        except Exception as error:
            return self._failed(windows, error)
        for row, (job, number, window) in enumerate(windows):
            job.decoded[number] = without_samples(window, take(hypothesis, row), self._rate)
        return len(windows), _unique(windows)

    def transcript(self, job: Job) -> Transcript:
        """Returns the transcript of a job that is done. Any thread may call this."""
        return self._transcript(job, len(job.starts))

    def certain(self, job: Job) -> list[Word]:
        """Returns the first words of a job that what is not decoded cannot change."""
        count = next(i for i in range(len(job.starts) + 1) if i not in job.decoded)
        if not count:
            return []
        words = self._transcript(job, count).words
        if count == len(job.starts):
            return words
        limit = min(job.starts[count], job.decoded[count - 1].last - NEAR)
        return [word for word in words if word.end < limit]

    def _transcript(self, job: Job, count: int) -> Transcript:
        windows = [job.decoded[number] for number in range(count)]
        return build_result(windows, self._recogniser, keep_tags=False).transcript

    def _next(self) -> list[tuple[Job, int, Window]]:
        """Returns the windows of the next batch: one or none of each job, and again if it fits."""
        if not self._jobs:
            return []
        shapes = self._like(self._jobs[0].waiting[0][1])
        windows: list[tuple[Job, int, Window]] = []
        found = True
        while found:
            found = False
            for job in list(self._jobs):
                is_full = len(windows) == shapes[-1].rows
                if not is_full and job.waiting and self._like(job.waiting[0][1]) == shapes:
                    windows.append((job, *job.waiting.popleft()))
                    found = True
        first = self._jobs.popleft()
        self._jobs = deque(job for job in [*self._jobs, first] if job.waiting)
        return windows

    def _like(self, window: Window) -> list[Shape]:
        """Returns the shapes of the shortest rows that hold a window, fewest rows first."""
        size = len(window.samples)
        holding = [each for each in self._shapes if each.num_samples(self._rate) >= size]
        return [each for each in holding if each.seconds == holding[0].seconds]

    def _failed(
        self, windows: list[tuple[Job, int, Window]], error: Exception
    ) -> tuple[int, list[Job]]:
        jobs = _unique(windows)
        for job in jobs:
            job.error = error
            self.remove(job)
        return 0, jobs


def _unique(windows: list[tuple[Job, int, Window]]) -> list[Job]:
    return list({id(job): job for job, _, _ in windows}.values())
