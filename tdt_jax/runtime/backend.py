"""Which kind of device a program is traced for: this process's, or one that it is compiled for.

Some sums are laid out one way on a TPU and another on a CPU; which, is decided while tracing.
"""

import contextlib

import jax

_assumed: list[str] = []


def current() -> str:
    """ "cpu", "gpu" or "tpu"."""
    return _assumed[-1] if _assumed else jax.default_backend()


@contextlib.contextmanager
def assume(platform: str):
    """Trace for `platform`, though this process may not have it (ahead-of-time compilation).

    What jax has traced before, or traces inside, is not used on the other side.
    """
    jax.clear_caches()
    _assumed.append(platform)
    try:
        yield
    finally:
        _assumed.pop()
        jax.clear_caches()
