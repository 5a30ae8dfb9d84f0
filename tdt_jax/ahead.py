"""What the TPU's compiler says of a program, with no TPU at hand: libtpu compiles for any topology.

    pip install libtpu

Its estimates are of cycles, operation by operation; a loop whose length is a value it counts once.
So the loops are told apart by name here and multiplied by the lengths that the caller knows.
"""

import importlib.util
import os
import re
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from tdt_jax.benchmark import DURATIONS, SIGMA, Case, make_joint
from tdt_jax.lean_loss import transducer_loss
from tdt_jax.problem import CHUNK
from tdt_jax.tiles import SIDE_ON_TPU, Grid

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


def loss_report(case: Case, *, dtype: str, topology: str) -> str:
    """What the compiler for one TPU chip says of `transducer_loss`, forward and backward, to read.

    Raises:
      ValueError: as `device`.
    """
    chip, chunk = topology.partition(":")[0], CHUNK
    sharding = SingleDeviceSharding(device(topology))

    def placed(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    joint = jax.tree.map(
        lambda x: placed(x.shape, x.dtype), jax.eval_shape(lambda: make_joint(case, dtype))
    )
    width, lengths = case.width, placed((case.batch,), jnp.int32)
    arguments = (
        joint,
        placed((case.batch, case.frames, width), dtype),
        placed((case.batch, case.labels + 1, width), dtype),
        placed((case.batch, case.labels), jnp.int32),
        lengths,
        lengths,
    )

    def total(joint, frames, states, *lengths):
        options = dict(durations=DURATIONS, sigma=SIGMA, chunk=chunk)
        return transducer_loss(joint, frames, states, *lengths, **options).sum()

    start = time.perf_counter()
    compiled = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2))).lower(*arguments).compile()
    seconds = time.perf_counter() - start
    loops = ("scores_of_tiles", "recursion", "gradients_of_tiles")
    found = estimate(compiled, loops, chip)
    grid = Grid(case.batch, case.frames, case.labels + 1, SIDE_ON_TPU)
    groups = -(-grid.size // grid.group(chunk))
    forward, step, backward = (found.seconds_a_turn[name] for name in loops)
    recursion = (case.frames + case.labels + 1) * step
    passes = {"bfloat16": 1, "float32": 6}[dtype]  # a float32 product in bfloat16 pieces
    floor = passes * case.flops / PEAK[chip]
    lines = [
        f"{case.name}: B={case.batch} T={case.frames} U={case.labels} V={case.vocab} J={width} "
        f"{dtype}, one {chip}, compiled in {seconds:.0f} s",
        f"  memory: {found.temporary_bytes / 1e6:.0f} MB of temporaries, "
        f"{found.argument_bytes / 1e6:.0f} MB in, {found.output_bytes / 1e6:.0f} MB out, "
        f"of {MEMORY[chip] / 1e9:.0f} GB",
        f"  the compiler's estimates: {1e3 * forward:.2f} ms a group of {chunk} nodes forward, "
        f"{1e3 * backward:.2f} ms backward; {1e3 * recursion:.0f} ms the recursion, "
        f"{1e3 * found.seconds_outside:.0f} ms the rest",
    ]
    for share in (1.0, 0.3):
        whole = groups * (forward + share * backward) + recursion + found.seconds_outside
        lines.append(
            f"  with {100 * share:.0f} % of the tiles backward: {whole:.2f} s, "
            f"{whole / floor:.2f} x the floor of {floor:.2f} s"
        )
    return "\n".join(lines)


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
