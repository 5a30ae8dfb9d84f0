"""The kind of device that a program is traced for: this process's own, or another's.

Some functions compute the same sums in one layout on a TPU and in another on a CPU. They choose
while they are traced.

The lattice and attention have kernels of their own (Pallas) for TPUs and GPUs. Those for GPUs
are an option. The variable TDT_JAX_KERNELS, "on" or "off" when a program is traced, overrides the
default.
"""

import contextlib
import os
from collections.abc import Iterator

import jax

_assumed: list[str] = []
_kernels: list[bool] = []
_interpreted: list[bool] = []


def current() -> str:
    """Returns "cpu", "gpu" or "tpu"."""
    return _assumed[-1] if _assumed else jax.default_backend()


def uses_kernels() -> bool:
    """Returns whether programs for this backend have kernels in place of XLA's operations.

    Raises:
      ValueError: if TDT_JAX_KERNELS is neither "on" nor "off".
    """
    if current() == "cpu":
        return False
    if _kernels:
        return _kernels[-1]
    chosen = os.environ.get("TDT_JAX_KERNELS")
    if chosen not in (None, "on", "off"):
        raise ValueError(f'TDT_JAX_KERNELS must be "on" or "off", got {chosen!r}')
    return current() == "tpu" if chosen is None else chosen == "on"


def interprets_kernels() -> bool:
    """Returns whether kernels are run by Pallas' interpreter, for tests on a CPU."""
    return bool(_interpreted and _interpreted[-1])


@contextlib.contextmanager
def assume(
    platform: str, *, kernels: bool | None = None, interpret: bool = False
) -> Iterator[None]:
    """Makes `current` return `platform` within the context, for compiling ahead of time.

    `kernels` is what `uses_kernels` returns then; None: its default. `interpret` is what
    `interprets_kernels` returns. JAX's caches are cleared on entry and on exit, so that nothing
    traced for one platform is used for another; they are kept where nothing changes.
    """
    same = platform == current() and interpret == interprets_kernels()
    if same and kernels in (None, uses_kernels()):
        yield
        return
    jax.clear_caches()
    _assumed.append(platform)
    _interpreted.append(interpret)
    if kernels is not None:
        _kernels.append(kernels)
    try:
        yield
    finally:
        _assumed.pop()
        _interpreted.pop()
        if kernels is not None:
            _kernels.pop()
        jax.clear_caches()
