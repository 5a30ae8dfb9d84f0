"""The kind of device that a program is traced for: this process's own, or another's.

Some functions compute the same sums in one layout on a TPU and in another on a CPU. They choose
while they are traced.
"""

import contextlib
from collections.abc import Iterator

import jax

_assumed: list[str] = []


def current() -> str:
    """Returns "cpu", "gpu" or "tpu"."""
    return _assumed[-1] if _assumed else jax.default_backend()


@contextlib.contextmanager
def assume(platform: str) -> Iterator[None]:
    """Makes `current` return `platform` within the context, for compiling ahead of time.

    JAX's caches are cleared on entry and on exit, so that nothing traced for one platform is used
    for another; they are kept where `platform` is current already.
    """
    if platform == current():
        yield
        return
    jax.clear_caches()
    _assumed.append(platform)
    try:
        yield
    finally:
        _assumed.pop()
        jax.clear_caches()
