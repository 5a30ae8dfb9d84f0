"""The loss, as the TPU's compiler estimates it without a TPU: libtpu compiles for any topology.

    pip install "jax[tpu]"

installs the libtpu that fits this jax; another may not read its programs. The compiler estimates
the cycles of each operation (`tdt_jax.profiling.hlo`), but not those of gathers, scatters, sorts
and exchanges between chips.
"""

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from tdt_jax.benchmarks.cases import DURATIONS, SIGMA, Case, abstract_joint
from tdt_jax.benchmarks.report import Report
from tdt_jax.benchmarks.timing import memory_of, timed
from tdt_jax.losses.grid import SIDE_ON_TPU, Grid
from tdt_jax.losses.nodes import CHUNK
from tdt_jax.losses.tiled import transducer_loss
from tdt_jax.profiling import hlo
from tdt_jax.profiling.tpu import chip_of, devices, text_of
from tdt_jax.runtime import backend

# Parts of the scopes of the loss's loops over tiles, whose lengths the compiler does not know.
TILE_LOOPS = "scores_of_tiles", "gradients_of_tiles"


def num_groups(batch: int, frames: int, labels: int, chunk: int = CHUNK) -> int:
    """Returns the number of iterations of a loop over tiles that computes all nodes."""
    grid = Grid(batch, frames, labels + 1, SIDE_ON_TPU)
    return -(-grid.size // grid.group_size(chunk))


def loss_aot_report(case: Case, *, dtype: str, topology: str) -> Report:
    """Returns the estimates for `transducer_loss` and its gradients on one TPU chip.

    Raises:
      ValueError: as `profiling.tpu.devices`.
    """
    name, chip = topology.partition(":")[0], chip_of(topology)
    sharding = SingleDeviceSharding(devices(topology)[0])

    def placed(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    joint = jax.tree.map(lambda x: placed(x.shape, x.dtype), abstract_joint(case, dtype))
    lengths = placed((case.batch,), jnp.int32)
    arguments = (
        joint,
        placed((case.batch, case.frames, case.width), dtype),
        placed((case.batch, case.labels + 1, case.width), dtype),
        placed((case.batch, case.labels), jnp.int32),
        lengths,
        lengths,
    )

    def total(joint, frames, states, *lengths):
        options = dict(durations=DURATIONS, sigma=SIGMA)
        return transducer_loss(joint, frames, states, *lengths, **options).sum()

    def compile():
        with backend.assume("tpu"):
            lowered = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2))).lower(*arguments)
        return lowered.compile()

    seconds, compiled = timed(compile)
    groups = num_groups(case.batch, case.frames, case.labels)
    program = hlo.read(text_of(compiled), dict.fromkeys(TILE_LOOPS, groups))
    forward, recursion, backward = (
        program.cycles_in(loop) / chip.clock for loop in (TILE_LOOPS[0], "recursion", TILE_LOOPS[1])
    )
    rest = program.cycles / chip.clock - forward - recursion - backward
    memory = memory_of(compiled)
    passes = {"bfloat16": 1, "float32": 6}[dtype]  # a float32 product in bfloat16 pieces
    floor = passes * case.flops / chip.peak
    row = {
        "case": case.name,
        "compile_seconds": seconds,
        "temporary_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "forward_seconds": forward,
        "recursion_seconds": recursion,
        "backward_seconds": backward,
        "other_seconds": rest,
        "floor_seconds": floor,
    }
    lines = [
        f"{case.name}: B={case.batch} T={case.frames} U={case.labels} V={case.vocab} "
        f"J={case.width} {dtype}, one {name}, compiled in {seconds:.0f} s",
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
    return Report([row], "\n".join(lines))
