"""Settings of the process: the compilation cache, and how memory is given back."""

import ctypes
import os
import sys
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
