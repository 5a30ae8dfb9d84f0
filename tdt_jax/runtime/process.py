"""Settings of this process: compilation cache, compile seconds, memory allocator, devices."""

import ctypes
import logging
import os
import sys
import time
import warnings
from pathlib import Path

import jax

from tdt_jax.runtime.files import cache_folder, is_writable

log = logging.getLogger(__name__)


def set_up() -> None:
    """Turns on the persistent compilation cache, and keeps freed memory for the next step.

    Compiled programs go to $JAX_COMPILATION_CACHE_DIR, by default to tdt_jax in the user's cache
    folder. A folder that cannot be written to is only read from.
    """
    chosen: str | None = jax.config.values["jax_compilation_cache_dir"]
    folder = cache_folder() if chosen is None else chosen
    is_local = folder is not None and "://" not in str(folder)
    if folder is None or (is_local and not is_writable(Path(folder))):
        log.warning(
            "compiled programs are not kept for the next time: %s cannot be written to",
            chosen or "the user's cache folder ($JAX_COMPILATION_CACHE_DIR names another)",
        )
        warnings.filterwarnings("ignore", "Error writing persistent compilation cache entry")
        folder = folder if folder is not None and os.path.isdir(folder) else None
    jax.config.update("jax_compilation_cache_dir", None if folder is None else str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    _keep_freed_memory()


def require_devices() -> None:
    """Raises ValueError, naming JAX_PLATFORMS and the reason, if JAX finds none of its devices."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        platforms = jax.config.values["jax_platforms"] or ""
        reason = str(error).partition(" (set JAX_PLATFORMS")[0].partition("\n")[0]
        raise ValueError(
            f"JAX has no device for JAX_PLATFORMS={platforms}"
            + (f": {reason}" if reason else "")
            + "; without that variable it uses any device"
        ) from None


def compile_seconds() -> float:
    """Returns the seconds that JAX has traced and compiled for since this module was imported."""
    return sum(end - start for start, end in _spans)


_spans: list[tuple[float, float]] = []  # start and end of each compilation; none contains another


def _record_compilation(event: str, duration_secs: float, **_) -> None:
    if not event.startswith("/jax/core/compile/"):
        return
    end = time.perf_counter()
    start = end - duration_secs
    while _spans and _spans[-1][0] >= start:  # part of this one
        _spans.pop()
    _spans.append((max(start, _spans[-1][1]) if _spans else start, end))


jax.monitoring.register_event_duration_secs_listener(_record_compilation)


def _keep_freed_memory() -> None:
    """Stops glibc from returning large blocks to the system when they are freed.

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
