"""What benchmarks measure with: a process of its own, seconds, memory."""

import concurrent.futures
import importlib.util
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path


def installed(package: str) -> bool:
    """Whether it can be imported; without doing so."""
    return importlib.util.find_spec(package) is not None


def in_subprocess(function, *arguments, **options):
    """The result of a call in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments, **options).result()


def median_seconds(run: Callable, repeats: int):
    """The median seconds of some runs after a first that does not count, and the last result."""
    result, seconds = run(), []
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def _memory(field: str, path: str) -> int | None:
    """A field of a file in /proc, in bytes; None where there is no such file."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith(f"{field}:")), None)


def available_bytes() -> float:
    """Of memory; infinity where that is not known."""
    return _memory("MemAvailable", "/proc/meminfo") or float("inf")


def reset_peak() -> int | None:
    """Start to look for the peak of memory from here; returns what is in use (Linux only)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _memory("VmRSS", "/proc/self/status")


def peak_since(before: int | None) -> int | None:
    """Bytes that the process has grown by at most since `reset_peak` gave `before`."""
    return None if before is None else _memory("VmHWM", "/proc/self/status") - before
