"""Seconds and memory of a function, and the rates at which this machine multiplies and reads."""

import concurrent.futures
import functools
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.profiling.target import memory_of

R = TypeVar("R")


class Measurement(NamedTuple):
    """The cost of a function that was run several times."""

    seconds: float  # the median of the runs
    compile_seconds: float
    temporary_bytes: int | None  # of the compiled program, by XLA's account; None for torch
    peak_bytes: int | None  # by which the process, or the device's memory, grew at its peak
    device: str


def in_subprocess(function: Callable[..., R], *arguments, **options) -> R:
    """Calls a function in a process of its own, so that peaks of memory are its own."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments, **options).result()


def measure(function: Any, *arguments: Any, repeats: int) -> tuple[Measurement, Any]:
    """Compiles and runs a jitted function; returns its cost and its last result."""
    start = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    compile_seconds = time.perf_counter() - start
    before = reset_peak()
    seconds, result = median_seconds(lambda: jax.block_until_ready(compiled(*arguments)), repeats)
    device, peak = jax.devices()[0], peak_since(before)
    if device.platform != "cpu":
        peak = (device.memory_stats() or {}).get("peak_bytes_in_use")  # arguments included
    temporary = memory_of(compiled).temp_size_in_bytes
    return Measurement(seconds, compile_seconds, temporary, peak, device.device_kind), result


def median_seconds(run: Callable[[], R], repeats: int) -> tuple[float, R]:
    """Returns the median seconds of `repeats` runs after a first, and the last result."""
    result, seconds = run(), []
    for _ in range(repeats):
        taken, result = timed(run)
        seconds.append(taken)
    return statistics.median(seconds), result


def timed(run: Callable[[], R]) -> tuple[float, R]:
    """Returns the seconds that one run takes, and its result."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


# Memory of the process (Linux only)


def available_bytes() -> float:
    """Returns the free memory of the machine in bytes; infinity where it is not known."""
    return _field("MemAvailable", "/proc/meminfo") or float("inf")


def reset_peak() -> int | None:
    """Resets the peak of this process's memory; returns the bytes in use, None if not known."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _field("VmRSS", "/proc/self/status")


def peak_since(before: int | None) -> int | None:
    """Returns by how many bytes the process has grown at most since `reset_peak` gave `before`."""
    peak = _field("VmHWM", "/proc/self/status")
    return None if before is None or peak is None else peak - before


def _field(name: str, path: str) -> int | None:
    """Returns a field of a file in /proc, in bytes; None where there is no such file."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith(f"{name}:")), None)


# Rates


def feed_forward_rate(width: int, dtype: str) -> float:
    """Returns the best flop/s of the encoder's largest product, [rows, D] x [D, 4 D]."""
    return max(
        _product_rate(jnp.matmul, (rows, width), (width, 4 * width), dtype, 8 * rows * width**2)
        for rows in (512, 4096)
    )


def heads_rate(width: int, num_outputs: int, dtype: str) -> float:
    """Returns the best flop/s of the joint network's heads, [rows, J] x [J, outputs].

    The products of both gradients count as well. All are as exact as the joint network's.
    """
    matmul = functools.partial(
        jnp.matmul, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32
    )
    best = 0.0
    for rows in (2048, 8192):
        x, kernel, gradient = (rows, width), (width, num_outputs), (rows, num_outputs)
        for product, left, right in (
            (matmul, x, kernel),
            (lambda g, w: matmul(g, w.T), gradient, kernel),
            (lambda x, g: matmul(x.T, g), x, gradient),
        ):
            flops = 2 * rows * width * num_outputs
            best = max(best, _product_rate(product, left, right, dtype, flops))
    return best


def _product_rate(product: Callable, left: tuple, right: tuple, dtype: str, flops: int) -> float:
    """Returns the flop/s of a product of two matrices of these shapes."""
    pair, run = (jnp.ones(left, dtype), jnp.ones(right, dtype)), jax.jit(product)
    seconds, _ = median_seconds(lambda: jax.block_until_ready(run(*pair)), 10)
    return flops / seconds


def bandwidth(num_bytes: int, repeats: int = 20) -> float:
    """Returns the best bytes/s at which a buffer of this size is read over and over.

    It is read by numpy's maximum on one thread and on two, by numpy's product of a vector with a
    matrix, and by jax's maximum.
    """
    buffer = np.ones((max(1, num_bytes // 4 // 512), 512), np.float32)
    halves = np.array_split(buffer, 2)
    vector = np.ones(len(buffer), np.float32)
    on_device, times = jax.device_put(buffer), 5

    @jax.jit
    def maximum(x):
        return jax.lax.fori_loop(0, times, lambda _, most: jnp.max(jnp.maximum(x, most)), 0.0)

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        reads: list[tuple[int, Callable]] = [
            (1, buffer.max),
            (1, lambda: list(threads.map(np.max, halves))),
            (1, lambda: vector @ buffer),
            (times, lambda: jax.block_until_ready(maximum(on_device))),
        ]
        return max(
            count * buffer.nbytes / min(timed(read)[0] for _ in range(repeats))
            for count, read in reads
        )
