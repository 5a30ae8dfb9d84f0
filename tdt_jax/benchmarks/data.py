"""How fast training batches are read, decoded and augmented, without a model."""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tdt_jax.config import Config
from tdt_jax.data.batches import iterate
from tdt_jax.data.task import make_task


class Row(NamedTuple):
    """What a number of threads achieved."""

    threads: int
    seconds: float
    cpu_seconds: float  # of all threads of the process
    num_batches: int
    audio_seconds: float
    padded_seconds: float  # of audio that the batches' shapes hold
    bytes: int  # of the batches' samples
    failed: int  # utterances that were replaced

    @property
    def speed(self) -> float:
        """Seconds of audio per second."""
        return self.audio_seconds / self.seconds

    @property
    def speed_per_cpu(self) -> float:
        """Seconds of audio per second of one processor: it hardly changes on a busy machine."""
        return self.audio_seconds / self.cpu_seconds

    def describe(self) -> str:
        """One line."""
        failed = f"  {self.failed} unreadable" if self.failed else ""
        return (
            f"{self.threads} threads  {self.speed:7.0f} s of audio per second, "
            f"{self.speed_per_cpu:7.0f} per CPU second  "
            f"{self.bytes / self.seconds / 1e6:6.0f} MB/s  "
            f"{self.num_batches} batches in {self.seconds:.1f} s, "
            f"{100 * (1 - self.audio_seconds / self.padded_seconds):.0f} % padding{failed}"
        )


def measure(config: Config, *, threads: Sequence[int], seconds: float) -> Iterator[Row]:
    """Yield a row for each number of threads: training batches from the first on, for `seconds`.

    The first batch, with which files are opened, is not counted. What the operating system keeps
    of the files in memory favours the later rows.
    """
    task = make_task(config)
    rate = config.model.features.sample_rate
    for number in threads:
        batches = iterate(task.batches, num_threads=number, prefetch=config.data.prefetch)
        next(batches)
        start, used = time.perf_counter(), time.process_time()
        count, samples, padded = 0, 0, 0
        for _, batch in batches:
            count += 1
            samples += int(batch.num_samples.sum())
            padded += batch.samples.size
            if (elapsed := time.perf_counter() - start) >= seconds:
                break
        batches.close()
        failed = len(getattr(task.batches, "failed", {}))
        times = elapsed, time.process_time() - used
        yield Row(number, *times, count, samples / rate, padded / rate, 4 * padded, failed)
