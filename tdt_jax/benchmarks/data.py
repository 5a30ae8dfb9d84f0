"""How fast training batches are read, decoded and augmented, without a model."""

import time
from collections.abc import Iterator, Sequence

from tdt_jax.benchmarks.report import Report
from tdt_jax.config import Config
from tdt_jax.data.batches import iterate
from tdt_jax.data.task import make_task


def data_reports(config: Config, *, threads: Sequence[int], seconds: float) -> Iterator[Report]:
    """Yields a report of one row for each number of threads, which make batches for `seconds`.

    The batches are the training batches from the first on. The first, with which files are opened,
    is not counted. What the operating system keeps of the files in memory favors the later rows.

    A row holds, beside the number of threads: seconds; cpu_seconds of all threads of the process;
    num_batches; audio_seconds; padded_seconds, that the batches' shapes hold; bytes of the batches'
    samples; and failed, the number of utterances that could not be read and were replaced.
    """
    task = make_task(config)
    rate = config.model.features.sample_rate
    for number in threads:
        batches = iterate(task.batches, num_threads=number, prefetch=config.data.prefetch)
        next(batches)
        start, start_cpu = time.perf_counter(), time.process_time()
        count, samples, padded = 0, 0, 0
        for _, batch in batches:
            count += 1
            samples += int(batch.num_samples.sum())
            padded += batch.samples.size
            if time.perf_counter() - start >= seconds:
                break
        elapsed, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        batches.close()
        row = {
            "threads": number,
            "seconds": elapsed,
            "cpu_seconds": cpu,
            "num_batches": count,
            "audio_seconds": samples / rate,
            "padded_seconds": padded / rate,
            "bytes": 4 * padded,
            "failed": len(getattr(task.batches, "failed", {})),
        }
        yield Report([row], _line(row))


def _line(row: dict) -> str:
    seconds, audio = row["seconds"], row["audio_seconds"]
    failed = f"  {row['failed']} unreadable" if row["failed"] else ""
    return (
        f"{row['threads']} threads  {audio / seconds:7.0f} s of audio per second, "
        f"{audio / row['cpu_seconds']:7.0f} per CPU second  "
        f"{row['bytes'] / seconds / 1e6:6.0f} MB/s  "
        f"{row['num_batches']} batches in {seconds:.1f} s, "
        f"{100 * (1 - audio / row['padded_seconds']):.0f} % padding{failed}"
    )
