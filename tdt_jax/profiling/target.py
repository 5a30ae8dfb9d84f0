"""Accelerators to compile for where there is none, and what their compilers report."""

import contextlib
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from tdt_jax.profiling import gpu, hlo, launches, tpu
from tdt_jax.profiling.chip import Chip


class Target(NamedTuple):
    """Devices of one kind to compile for."""

    name: str  # as the user names them
    platform: str  # "tpu" or "gpu", as `runtime.backend` has it
    chip: Chip
    devices: list  # of jax
    options: dict[str, str | bool]  # of the compiler

    @property
    def device_name(self) -> str:
        """The name of one device: h100, v5e."""
        return self.name.partition(":")[0]


def find(name: str) -> Target:
    """Returns the target of a name: h100, h100:8, or a TPU's topology such as v5e:2x2.

    Raises:
      ValueError: for an unknown device or topology, and if its compiler is not installed.
    """
    device, _, topology = name.partition(":")
    if device == "h100":
        if not re.fullmatch(r"[1-8]?", topology):
            raise ValueError(f"a host has 1 to 8 H100s, got {name!r}")
        return Target(name, "gpu", gpu.H100, gpu.devices(int(topology or 1)), gpu.OPTIONS)
    if device not in tpu.CHIPS:
        known = ", ".join((*tpu.CHIPS, "h100"))
        raise ValueError(f"the chip of {name!r} is none of {known}")
    return Target(name, "tpu", tpu.CHIPS[device], tpu.devices(name), {})


def lowering(target: Target) -> contextlib.AbstractContextManager:
    """Returns a context in which programs with kernels (Pallas) can be lowered for a target.

    Those for a GPU are lowered for its kind, which jax otherwise asks the device at hand for.
    """
    if target.platform != "gpu":
        return contextlib.nullcontext()
    device = jax.sharding.AbstractDevice(
        device_kind=target.devices[0].device_kind, num_cores=None, platform=target.platform
    )
    mesh = jax.sharding.AbstractMesh((), (), abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)


class DoesNotFit(ValueError):
    """A program needs more memory than a device has."""


class Compiled(NamedTuple):
    """A program that was compiled for a target, and never runs."""

    seconds: float  # that compilation took
    text: str  # for `hlo.read`
    memory: Any  # XLA's account of it
    peak_bytes: int  # of one device, with arguments and results
    thunks: list[launches.Thunk] | None  # of a GPU
    kernels: list[gpu.Kernel] | None  # of a GPU, where ptxas is found

    def counts(self, iterations: Mapping[str, int] | None = None) -> launches.Counts | None:
        """Returns a GPU's launches; None on a TPU. `iterations` are as of `hlo.read`."""
        if self.thunks is None:
            return None
        return launches.count(self.thunks, hlo.loops(self.text, iterations))


def compile(lowered: jax.stages.Lowered, target: Target) -> Compiled:
    """Returns the program that was lowered for a target's devices.

    Raises:
      DoesNotFit: if a device has too little memory for it.
      ValueError: if jaxlib cannot read the program.
    """
    is_gpu = target.platform == "gpu"
    with tempfile.TemporaryDirectory() as folder, _without_cache():
        dump = gpu.dump_options(folder) if is_gpu else {}
        start = time.perf_counter()
        try:
            compiled = lowered.compile(compiler_options=target.options | dump)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise DoesNotFit(f"it does not fit: {str(error).partition(chr(10))[0]}") from None
        seconds = time.perf_counter() - start
        thunks = kernels = None
        if is_gpu:
            thunks, kernels = launches.read_dump(Path(folder)), gpu.kernels(Path(folder))
    memory = memory_of(compiled)
    peak = memory.peak_memory_in_bytes
    if is_gpu and peak > target.chip.memory:  # which its compiler does not refuse
        raise DoesNotFit(
            f"it does not fit: it needs {peak / 1e9:.2f} GB at the peak, of "
            f"{target.chip.memory / 1e9:.0f} GB"
        )
    return Compiled(seconds, text_of(compiled), memory, peak, thunks, kernels)


def text_of(compiled: jax.stages.Compiled) -> str:
    """Returns the text of a compiled program, for `hlo.read`.

    Raises:
      ValueError: if jaxlib cannot read the program that libtpu wrote.
    """
    try:
        return compiled.as_text() or ""
    except jax.errors.JaxRuntimeError as error:
        first = str(error).partition("\n")[0]
        raise ValueError(
            "jax cannot read the program that libtpu has compiled; "
            f"pip install 'jax[tpu]' installs a libtpu that fits it: {first}"
        ) from None


def memory_of(compiled: jax.stages.Compiled) -> Any:
    """Returns XLA's account of a program's memory.

    Raises:
      RuntimeError: on a device whose compiler gives none.
    """
    memory = compiled.memory_analysis()
    if memory is None:
        raise RuntimeError("this device's compiler gives no account of a program's memory")
    return memory


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """Keeps programs out of the persistent cache, from which those for no device cannot be read."""
    name = "jax_enable_compilation_cache"
    before = jax.config.values[name]
    jax.config.update(name, False)
    try:
        yield
    finally:
        jax.config.update(name, before)
