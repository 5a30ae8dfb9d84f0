"""Settings of the process: the compilation cache, compile seconds, and how memory is given back."""

import ctypes
import os
import sys
import time
from pathlib import Path

import jax


def set_up() -> None:
    """Keep compiled programs for the next run, and freed memory for the next step.

    Programs go to $JAX_COMPILATION_CACHE_DIR, by default tdt_jax in the user's cache folder.
    """
    if jax.config.jax_compilation_cache_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "tdt_jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    _keep_freed_memory()


_spans: list[tuple[float, float]] = []  # of compilation, none within another


def compile_seconds() -> float:
    """Seconds in which JAX has traced and compiled since this module was imported."""
    return sum(end - start for start, end in _spans)


def _listen(event: str, duration: float, **_) -> None:
    if not event.startswith("/jax/core/compile/"):
        return
    end = time.perf_counter()
    start = end - duration
    while _spans and _spans[-1][0] >= start:  # a part of this one
        _spans.pop()
    _spans.append((max(start, _spans[-1][1]) if _spans else start, end))


jax.monitoring.register_event_duration_secs_listener(_listen)


def _keep_freed_memory() -> None:
    """Stop glibc from returning large blocks to the system when they are freed.

    XLA on CPU allocates a step's temporaries anew each time; mapping and clearing those pages took
    up to a fifth of a small model's step.
    """
    if not sys.platform.startswith("linux"):
        return
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, (1 << 31) - 1)
