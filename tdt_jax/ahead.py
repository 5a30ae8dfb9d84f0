"""What the TPU's compiler says of a program, with no TPU at hand: libtpu compiles for any topology.

    pip install libtpu

Its estimates are of cycles, operation by operation; a loop whose length is a value it counts once.
So the loops are told apart by name here and multiplied by the lengths that the caller knows.
"""

import importlib.util
import os
import re
from typing import NamedTuple

# Cycles a second: a v5e has 4 units of 128 x 128 multiply-adds, and 197 bf16 TFLOP/s.
CLOCK = {"v5e": 1.5e9}
PEAK = {"v5e": 197e12}  # bf16 FLOP/s
MEMORY = {"v5e": 16e9}  # bytes


class Estimate(NamedTuple):
    """Of one device."""

    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    seconds_outside: float  # of what is in no loop, once
    seconds_a_turn: dict[str, float]  # of each loop's body, by a part of the loop's name


def device(topology: str):
    """A device of a topology such as v5e:2x2, to compile for.

    Raises:
      ValueError: for a chip that is not known here, or without libtpu.
    """
    if topology.partition(":")[0] not in CLOCK:
        raise ValueError(f"the chip of {topology!r} is none of {', '.join(CLOCK)}")
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError("compiling for a TPU needs libtpu (pip install libtpu)")
    from jax.experimental import topologies

    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no metadata server to ask
    return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]


def estimate(compiled, loops: list[str], chip: str) -> Estimate:
    """Read the memory and the cycles of a compiled program.

    Args:
      compiled: what `jax.jit(f).lower(...).compile()` gives.
      loops: for each loop to tell apart, a part of its name (`jax.named_scope`).
      chip: a key of CLOCK.

    Raises:
      ValueError: if a name is in no loop or in several that differ.
    """
    entry, bodies, cycles = _parse(compiled.as_text())
    seconds = {}
    for name in loops:
        found = {cycles[body] for scope, body in bodies if name in scope}
        if len(found) != 1:
            raise ValueError(f"{len(found)} loops are named {name}, among {[s for s, _ in bodies]}")
        seconds[name] = found.pop() / CLOCK[chip]
    memory = compiled.memory_analysis()
    return Estimate(
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.temp_size_in_bytes,
        cycles[entry] / CLOCK[chip],
        seconds,
    )


def _parse(text: str):
    """The entry's name, (op name, body) of every loop, and the cycles of every computation."""
    entry, bodies, cycles, current = "", [], {}, ""
    for line in text.splitlines():
        if start := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{", line):
            current = start[2]
            cycles[current] = 0
            entry = current if start[1] else entry
        if count := re.search(r'"estimated_cycles":"(\d+)"', line):
            cycles[current] += int(count[1])
        if loop := re.search(r" while\(.*body=%([\w.\-]+)", line):
            name = re.search(r'op_name="([^"]*)"', line)
            bodies.append((name[1] if name else "", loop[1]))
    return entry, bodies, cycles
