"""What all benchmarks that compile ahead of time share: programs, their figures, lines about them.

The seconds are a compiler's estimates; see `docs/accelerators.md` for what they count.
"""

import collections
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding

from tdt_jax.profiling import hlo
from tdt_jax.profiling import target as targets
from tdt_jax.profiling.chip import Chip, Cost, floor_seconds
from tdt_jax.profiling.launches import Counts, Launches
from tdt_jax.profiling.target import Compiled, Target
from tdt_jax.runtime import backend


def placed(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    """Returns the shapes of a tree's leaves with a sharding."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def compile_on_one(target: Target, function: Any, *arguments: Any, **options: Any) -> Compiled:
    """Returns a jitted function, compiled for arrays of these shapes on one device of a target.

    Raises:
      ValueError: as `profiling.target.compile`.
    """
    arguments = placed(arguments, SingleDeviceSharding(target.devices[0]))
    with backend.assume(target.platform), targets.lowering(target):
        lowered = function.lower(*arguments, **options)
    return targets.compile(lowered, target)


def figures(compiled: Compiled, cost: Cost, counts: Counts | None) -> dict[str, Any]:
    """Returns a row of a report: what there is to say about any program."""
    row = {
        "compile_seconds": compiled.seconds,
        "seconds": cost.busy + cost.exposed,
        **{f"{name}_seconds": value for name, value in cost._asdict().items()},
        "argument_bytes": compiled.memory.argument_size_in_bytes,
        "output_bytes": compiled.memory.output_size_in_bytes,
        "temporary_bytes": compiled.memory.temp_size_in_bytes,
        "peak_bytes": compiled.peak_bytes,
    }
    if counts is not None:
        row["launches"] = counts.launches._asdict()
        row["loops"] = [
            {**loop._asdict(), "launches": loop.launches._asdict()} for loop in counts.loops
        ]
    if compiled.kernels:
        row["registers"] = max(kernel.registers for kernel in compiled.kernels)
        row["spilling"] = [kernel.name for kernel in compiled.kernels if kernel.spilled_bytes]
    return row


def memory_line(compiled: Compiled, target: Target) -> str:
    memory = compiled.memory
    return (
        f"  memory, GB: {memory.argument_size_in_bytes / 1e9:.2f} of arguments, "
        f"{memory.temp_size_in_bytes / 1e9:.2f} of temporaries, {compiled.peak_bytes / 1e9:.2f} at "
        f"the peak, of {target.chip.memory / 1e9:.0f}"
    )


def cost_words(cost: Cost) -> str:
    """Returns the seconds of computation in words."""
    words = f"{1e3 * cost.compute:.2f} ms"
    if cost.kernels:
        words += (
            f", and at least {1e3 * cost.kernels:.2f} ms, by bytes and operations, for kernels "
            "without a usable estimate"
        )
    return words


def kernel_lines(program: hlo.Program, chip: Chip) -> list[str]:
    """Returns a line about each kind of kernel without a usable estimate."""
    found = collections.Counter()
    for each in program.kernels:
        found[each._replace(times=1, stack="")] += each.times
    lines = ["  kernels without a usable estimate: runs, MB, GFLOP, and us of each at least"]
    for kernel, times in found.items():
        lines.append(
            f"    {times:6,} {kernel.num_bytes / 1e6:9.2f} {kernel.flops / 1e9:9.2f} "
            f"{1e6 * floor_seconds(kernel, chip):9.1f}  {kernel.kernel} in {kernel.scope[-50:]}"
        )
    return lines if found else []


def launch_lines(compiled: Compiled, counts: Counts | None) -> list[str]:
    """Returns lines about a GPU's launches and generated kernels; none for a TPU."""
    if counts is None:
        return []
    lines = [f"  launches: {launch_words(counts.launches)}"]
    for loop in counts.loops:
        length = f", one of {loop.iterations}," if loop.is_known else ""
        lines.append(f"    an iteration{length} of {loop.scope}:")
        lines.append(f"      {launch_words(loop.launches)}")
    if compiled.kernels:
        most = max(compiled.kernels, key=lambda kernel: kernel.registers)
        shared = max(kernel.shared_bytes for kernel in compiled.kernels)
        spilling = [kernel.name for kernel in compiled.kernels if kernel.spilled_bytes]
        lines.append(
            f"  {len(compiled.kernels)} generated kernels: at most {most.registers} registers a "
            f"thread ({most.name}), {shared / 1e3:.1f} kB of shared memory a block; registers "
            f"spill in {', '.join(spilling) or 'none'}"
        )
    return lines


def launch_words(launches: Launches) -> str:
    """Returns launches in words."""
    number = f"{launches.most:,}"
    if launches.fewest < launches.most:
        number = f"{launches.fewest:,} to {number}"
    return (
        f"{number}, of which {launches.in_graphs:,} in CUDA graphs; the host submits "
        f"{launches.by_host:,} and waits {launches.waits:,} x"
    )
