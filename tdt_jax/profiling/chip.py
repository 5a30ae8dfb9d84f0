"""The performance of an accelerator; seconds of a compiled program from its cycles and bytes."""

from typing import NamedTuple

from tdt_jax.profiling import hlo

HOP_SECONDS = 1e-6  # latency from a chip to the next (Austin et al.)


class Chip(NamedTuple):
    """The performance of one device."""

    memory: float  # bytes
    peak: float  # bfloat16 operations per second
    bandwidth: float  # of the memory, in bytes per second
    link: float  # to other devices, in bytes per second: what `exchange_seconds` divides by
    clock: float  # cycles per second, in the compiler's estimates


class Cost(NamedTuple):
    """The seconds that one run of a program takes on each device: compute + kernels + exposed."""

    compute: float  # by the compiler's estimate, which leaves out `kernels`
    kernels: float  # at least, by their bytes and operations: `hlo.Program.kernels`
    exchange: float  # all collectives, one after another
    exposed: float  # collectives, as far as no operation runs at the same time

    @property
    def busy(self) -> float:
        """The seconds in which a device computes."""
        return self.compute + self.kernels


def cost_of(program: hlo.Program, chip: Chip, num_devices: int = 1) -> Cost:
    """Returns the cost of a program on each of `num_devices` devices."""
    times = [(x.times, *exchange_seconds(x, chip, num_devices)) for x in program.collectives]
    return Cost(
        program.cycles / chip.clock,
        sum(each.times * floor_seconds(each, chip) for each in program.kernels),
        sum(number * seconds for number, seconds, _ in times),
        sum(number * exposed for number, _, exposed in times),
    )


def floor_seconds(kernel: hlo.Operation, chip: Chip) -> float:
    """Returns the least seconds of one run of a kernel, by its bytes and its operations."""
    return max(kernel.num_bytes / chip.bandwidth, kernel.flops / chip.peak)


def exchange_seconds(
    collective: hlo.Collective, chip: Chip, num_devices: int
) -> tuple[float, float]:
    """Returns the seconds of a collective, and those in which no operation runs at the same time.

    The model is a ring along one axis of a TPU's torus, in both directions at once: its links carry
    the data of (n - 1) of n devices, for an all-reduce twice. The first byte travels half way round
    a square. Through a switch each GPU receives as much.
    """
    size = collective.num_devices or num_devices
    if collective.kind == "collective-permute":
        seconds = HOP_SECONDS + collective.num_bytes / (chip.link / 2)
    else:
        passes = 2 if collective.kind == "all-reduce" else 1
        num_bytes = collective.num_bytes * (size - 1) / size
        seconds = passes * (num_bytes / chip.link + HOP_SECONDS * size**0.5)
    return seconds, max(0.0, seconds - collective.hidden_cycles / chip.clock)
