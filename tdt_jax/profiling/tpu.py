"""TPU chips and their topologies; seconds of a compiled program from its cycles and bytes."""

import importlib.util
import os
from typing import NamedTuple

import jax

from tdt_jax.profiling import hlo


class Chip(NamedTuple):
    """The performance of one TPU device, by Google's public figures.

    Sources: cloud.google.com/tpu/docs/system-architecture-tpu-vm; Austin et al., "How to Scale Your
    Model", 2025, jax-ml.github.io/scaling-book/tpus. At these clocks the compiler estimates that a
    product of 8192 x 8192 bfloat16 matrices runs at 90, 88, 90 and 70 % of the peak.
    """

    memory: float  # bytes
    peak: float  # bfloat16 operations per second
    bandwidth: float  # of the memory, in bytes per second
    link: float  # of one axis of the torus, both directions together, in bytes per second
    clock: float  # cycles per second


CHIPS = {
    "v4": Chip(16e9, 137.5e12, 0.6e12, 90e9, 1.05e9),  # a device is a core, half a chip
    "v5e": Chip(16e9, 197e12, 0.81e12, 90e9, 1.5e9),
    "v5p": Chip(95e9, 459e12, 2.8e12, 180e9, 1.75e9),
    "v6e": Chip(32e9, 918e12, 1.6e12, 180e9, 1.75e9),
}
HOP_SECONDS = 1e-6  # latency from a chip to the next (Austin et al.)


def chip_of(topology: str) -> Chip:
    """Returns the chip of a topology such as v5e:2x2.

    Raises:
      ValueError: for a chip that is not in CHIPS.
    """
    name = topology.partition(":")[0]
    if name not in CHIPS:
        raise ValueError(f"the chip of {topology!r} is none of {', '.join(CHIPS)}")
    return CHIPS[name]


def devices(topology: str) -> list:
    """Returns the devices of a topology such as v5e:16x16, for compiling ahead of time.

    Raises:
      ValueError: for an unknown topology, and without libtpu.
    """
    chip_of(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError("compiling for a TPU needs libtpu (pip install 'jax[tpu]')")
    from jax.experimental import topologies

    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no metadata server
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nothing runs, so no chip is in use
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise ValueError(f"libtpu knows no topology {topology!r}: {first}") from None
    return list(description.devices)


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


class Cost(NamedTuple):
    """The seconds that one run of a program takes on each device: compute + exposed."""

    compute: float  # by the compiler's estimate
    exchange: float  # all collectives, one after another
    exposed: float  # collectives, as far as no operation runs at the same time


def cost_of(program: hlo.Program, chip: Chip, num_devices: int) -> Cost:
    """Returns the cost of a program on each of `num_devices` devices."""
    times = [(x.times, *exchange_seconds(x, chip, num_devices)) for x in program.collectives]
    return Cost(
        program.cycles / chip.clock,
        sum(number * seconds for number, seconds, _ in times),
        sum(number * exposed for number, _, exposed in times),
    )


def exchange_seconds(
    collective: hlo.Collective, chip: Chip, num_devices: int
) -> tuple[float, float]:
    """Returns the seconds of a collective, and those in which no operation runs at the same time.

    The model is a ring along one axis of the torus, in both directions at once: its links carry
    the data of (n - 1) of n devices, for an all-reduce twice. The first byte travels half way round
    a square.
    """
    size = collective.num_devices or num_devices
    if collective.kind == "collective-permute":
        seconds = HOP_SECONDS + collective.num_bytes / (chip.link / 2)
    else:
        passes = 2 if collective.kind == "all-reduce" else 1
        num_bytes = collective.num_bytes * (size - 1) / size
        seconds = passes * (num_bytes / chip.link + HOP_SECONDS * size**0.5)
    return seconds, max(0.0, seconds - collective.hidden_cycles / chip.clock)
