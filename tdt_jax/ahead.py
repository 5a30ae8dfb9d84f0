"""What the TPU's compiler says of a program, with no TPU at hand: libtpu compiles for any topology.

    pip install "jax[tpu]"

installs the libtpu that fits this jax, which cannot always read the programs of a later one. Its
estimates are of cycles, operation by operation (`tdt_jax.hlo`). For gathers, scatters, sorts and
exchanges between chips it gives none.
"""

import importlib.util
import os
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from tdt_jax import hlo, platform
from tdt_jax.benchmark import DURATIONS, SIGMA, Case, make_joint
from tdt_jax.lean_loss import transducer_loss
from tdt_jax.problem import CHUNK
from tdt_jax.tiles import SIDE_ON_TPU, Grid


class Chip(NamedTuple):
    """What one device of a TPU can do: Google's public figures.

    From cloud.google.com/tpu/docs/system-architecture-tpu-vm and Austin et al., "How to Scale Your
    Model", 2025, jax-ml.github.io/scaling-book/tpus. At these clocks the compiler estimates that a
    product of 8192 x 8192 bfloat16 matrices runs at 90, 88, 90 and 70 % of the peak.
    """

    memory: float  # bytes
    peak: float  # bf16 FLOP/s
    bandwidth: float  # of the memory, bytes/s
    link: float  # of one axis of the torus, both directions together, bytes/s
    clock: float  # cycles a second


CHIPS = {
    "v4": Chip(16e9, 137.5e12, 0.6e12, 90e9, 1.05e9),  # a device is a core, half a chip
    "v5e": Chip(16e9, 197e12, 0.81e12, 90e9, 1.5e9),
    "v5p": Chip(95e9, 459e12, 2.8e12, 180e9, 1.75e9),
    "v6e": Chip(32e9, 918e12, 1.6e12, 180e9, 1.75e9),
}
HOP_SECONDS = 1e-6  # from a chip to the next (Austin et al.)
# Parts of the scopes of the loss's loops over tiles, whose length is a value.
TILE_LOOPS = "scores_of_tiles", "gradients_of_tiles"


def chip_of(topology: str) -> Chip:
    """The chip of a topology such as v5e:2x2.

    Raises:
      ValueError: for a chip that is not known here.
    """
    name = topology.partition(":")[0]
    if name not in CHIPS:
        raise ValueError(f"the chip of {topology!r} is none of {', '.join(CHIPS)}")
    return CHIPS[name]


def devices(topology: str) -> list:
    """The devices of a topology such as v5e:16x16, to compile for.

    Raises:
      ValueError: for a topology that is not known, or without libtpu.
    """
    chip_of(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError("compiling for a TPU needs libtpu (pip install 'jax[tpu]')")
    from jax.experimental import topologies

    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no metadata server to ask
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nothing runs: no chip to hold alone
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise ValueError(f"libtpu knows no topology {topology!r}: {first}") from None
    return list(found.devices)


def text_of(compiled) -> str:
    """The text of a compiled program, for `hlo.read`.

    Raises:
      ValueError: if jaxlib cannot read what libtpu has written.
    """
    try:
        return compiled.as_text()
    except jax.errors.JaxRuntimeError as error:
        first = str(error).partition("\n")[0]
        raise ValueError(
            "jax cannot read the program that libtpu has compiled; "
            f"pip install 'jax[tpu]' installs a libtpu that fits it: {first}"
        ) from None


def num_groups(batch: int, frames: int, labels: int, chunk: int = CHUNK) -> int:
    """How often a loop over tiles turns, if all nodes of the lattices matter."""
    grid = Grid(batch, frames, labels + 1, SIDE_ON_TPU)
    return -(-grid.size // grid.group(chunk))


class Cost(NamedTuple):
    """Of one run of a program, in seconds; the last two besides the first."""

    compute: float  # the compiler's estimate
    exchange: float  # of all collectives, one after another
    exposed: float  # of collectives, beyond what the program has run beside them


def cost_of(program: hlo.Program, chip: Chip, num_devices: int) -> Cost:
    """The Cost of a program on each of so many devices."""
    times = [(x.times, *exchange_seconds(x, chip, num_devices)) for x in program.collectives]
    return Cost(
        program.cycles / chip.clock,
        sum(number * seconds for number, seconds, _ in times),
        sum(number * exposed for number, _, exposed in times),
    )


def exchange_seconds(collective: hlo.Collective, chip: Chip, num_devices: int):
    """How long a collective takes, and how much longer than what runs beside it.

    As on a ring along one axis of the torus, in both directions at once: its links pass on what
    (n - 1) of n devices hold, an all-reduce twice. The first byte takes half way round a square.
    """
    size = collective.num_devices or num_devices
    if collective.kind == "collective-permute":
        seconds = HOP_SECONDS + collective.num_bytes / (chip.link / 2)
    else:
        passes = 2 if collective.kind == "all-reduce" else 1
        moved = collective.num_bytes * (size - 1) / size
        seconds = passes * (moved / chip.link + HOP_SECONDS * size**0.5)
    return seconds, max(0.0, seconds - collective.hidden_cycles / chip.clock)


def loss_report(case: Case, *, dtype: str, topology: str) -> str:
    """What the compiler for one TPU chip says of `transducer_loss`, forward and backward, to read.

    Raises:
      ValueError: as `device`.
    """
    name, chip = topology.partition(":")[0], chip_of(topology)
    sharding = SingleDeviceSharding(devices(topology)[0])

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
        options = dict(durations=DURATIONS, sigma=SIGMA)
        return transducer_loss(joint, frames, states, *lengths, **options).sum()

    start = time.perf_counter()
    with platform.assumed("tpu"):
        lowered = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2))).lower(*arguments)
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    groups = num_groups(case.batch, case.frames, case.labels)
    program = hlo.read(text_of(compiled), dict.fromkeys(TILE_LOOPS, groups))
    forward, recursion, backward = (
        program.cycles_in(loop) / chip.clock for loop in (TILE_LOOPS[0], "recursion", TILE_LOOPS[1])
    )
    rest = program.cycles / chip.clock - forward - recursion - backward
    memory = compiled.memory_analysis()
    passes = {"bfloat16": 1, "float32": 6}[dtype]  # a float32 product in bfloat16 pieces
    floor = passes * case.flops / chip.peak
    lines = [
        f"{case.name}: B={case.batch} T={case.frames} U={case.labels} V={case.vocab} J={width} "
        f"{dtype}, one {name}, compiled in {seconds:.0f} s",
        f"  memory: {memory.temp_size_in_bytes / 1e6:.0f} MB of temporaries, "
        f"{memory.argument_size_in_bytes / 1e6:.0f} MB in, "
        f"{memory.output_size_in_bytes / 1e6:.0f} MB out, of {chip.memory / 1e9:.0f} GB",
        f"  the compiler's estimates: {1e3 * forward / groups:.2f} ms a group of {CHUNK} nodes "
        f"forward, {1e3 * backward / groups:.2f} ms backward; {1e3 * recursion:.0f} ms the "
        f"recursion, {1e3 * rest:.0f} ms the rest",
    ]
    for share in (1.0, 0.3):
        whole = forward + share * backward + recursion + rest
        lines.append(
            f"  with {100 * share:.0f} % of the tiles backward: {whole:.2f} s, "
            f"{whole / floor:.2f} x the floor of {floor:.2f} s"
        )
    return "\n".join(lines)
