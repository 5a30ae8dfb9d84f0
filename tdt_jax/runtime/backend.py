"""The kind of device that a program is traced for: this process's own, or another's.

Some functions compute the same sums in one layout on a TPU and in another on a CPU. They choose
while they are traced.

The lattice and attention have kernels of their own (Pallas) for TPUs and GPUs. They are the default
on TPUs and on NVIDIA's GPUs from LEAST_CAPABILITY. The variable TDT_JAX_KERNELS, "on" or "off" when
a program is traced, overrides the default.
"""

import contextlib
import os
from collections.abc import Iterator

import jax

LEAST_CAPABILITY = 8  # the major version of a GPU's compute capability: Ampere, which has bfloat16

_assumed: list[str] = []
_kernels: list[bool] = []
_interpreted: list[bool] = []


def current() -> str:
    """Returns "cpu", "gpu" or "tpu"."""
    return _assumed[-1] if _assumed else jax.default_backend()


def uses_kernels(*, is_proven: bool = True) -> bool:
    """Returns whether programs for this backend have kernels in place of XLA's operations.

    Args:
      is_proven: whether a GPU has shown the kernel right and faster. Others are for
        TDT_JAX_KERNELS=on alone.

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
    if chosen is None:
        return current() == "tpu" or (is_proven and _gpu_runs_kernels())
    return chosen == "on"


def _gpu_runs_kernels() -> bool:
    """Returns whether the GPU is NVIDIA's and recent enough; those that are assumed are."""
    if _assumed:
        return True
    capability = getattr(jax.local_devices()[0], "compute_capability", "")  # "9.0"; AMD's: "gfx942"
    major = str(capability).partition(".")[0]
    return major.isdigit() and int(major) >= LEAST_CAPABILITY


def has_triton() -> bool:
    """Returns whether this jax lowers kernels for GPUs by Triton, which jax 0.11.2 deprecates."""
    try:
        from jax.experimental.pallas import triton  # noqa: F401
    except ImportError:
        return False
    return True


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
