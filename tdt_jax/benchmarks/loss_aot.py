"""The loss, as the compiler of a TPU or of a GPU estimates it without one."""

import jax
import jax.numpy as jnp

from tdt_jax.benchmarks import aot
from tdt_jax.benchmarks.cases import DURATIONS, SIGMA, Case, abstract_joint
from tdt_jax.benchmarks.report import Report
from tdt_jax.losses.grid import SIDE, SIDE_ON_TPU, Grid
from tdt_jax.losses.nodes import CHUNK
from tdt_jax.losses.tiled import transducer_loss
from tdt_jax.profiling import chip as chips
from tdt_jax.profiling import hlo
from tdt_jax.profiling import target as targets

# Parts of the scopes of the loss's loops over tiles, whose lengths the compiler does not know.
TILE_LOOPS = "scores_of_tiles", "gradients_of_tiles"


def tile_iterations(
    platform: str, batch: int, frames: int, labels: int, chunk: int = CHUNK
) -> dict[str, int]:
    """Returns the iterations of the loops over tiles that compute all nodes, for `hlo.read`."""
    side = SIDE_ON_TPU if platform == "tpu" else SIDE
    grid = Grid(batch, frames, labels + 1, side)
    return dict.fromkeys(TILE_LOOPS, -(-grid.size // grid.group_size(chunk)))


def loss_aot_report(case: Case, *, dtype: str, target: str) -> Report:
    """Returns the estimates for `transducer_loss` and its gradients on one device.

    Args:
      case: sizes of the batch.
      dtype: of parameters, frames and states.
      target: as of `profiling.target.find`.

    Raises:
      ValueError: as `profiling.target.find` and `.compile`.
    """
    device = targets.find(target)
    chip, shape = device.chip, jax.ShapeDtypeStruct
    lengths = shape((case.batch,), jnp.int32)
    arguments = (
        abstract_joint(case, dtype),
        shape((case.batch, case.frames, case.width), jnp.dtype(dtype)),
        shape((case.batch, case.labels + 1, case.width), jnp.dtype(dtype)),
        shape((case.batch, case.labels), jnp.int32),
        lengths,
        lengths,
    )

    def total(joint, frames, states, *lengths):
        options = dict(durations=DURATIONS, sigma=SIGMA)
        return transducer_loss(joint, frames, states, *lengths, **options).sum()

    gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
    compiled = aot.compile_on_one(device, gradients, *arguments)
    iterations = tile_iterations(device.platform, case.batch, case.frames, case.labels)
    groups = iterations[TILE_LOOPS[0]]
    program = hlo.read(compiled.text, iterations)
    cost, counts = chips.cost_of(program, chip), compiled.counts(iterations)
    forward, recursion, backward = (
        chips.cost_of(program.within(scope), chip).busy
        for scope in (TILE_LOOPS[0], "recursion", TILE_LOOPS[1])
    )
    rest = cost.busy - forward - recursion - backward
    passes = {"bfloat16": 1, "float32": 6}[dtype]  # a float32 product in bfloat16 pieces
    floor = passes * case.flops / chip.peak
    row = {
        "case": case.name,
        "dtype": dtype,
        "target": device.name,
        **aot.figures(compiled, cost, counts),
        "forward_seconds": forward,
        "recursion_seconds": recursion,
        "backward_seconds": backward,
        "other_seconds": rest,
        "floor_seconds": floor,
    }
    lines = [
        f"{case.name}: B={case.batch} T={case.frames} U={case.labels} V={case.vocab} "
        f"J={case.width} {dtype}, one {device.device_name}, compiled in {compiled.seconds:.0f} s",
        aot.memory_line(compiled, device),
        f"  estimated: {1e3 * forward / groups:.3f} ms a group of {CHUNK} nodes forward, "
        f"{1e3 * backward / groups:.3f} ms backward, {groups} groups; {1e3 * recursion:.1f} ms the "
        f"recursion, {1e3 * rest:.1f} ms the rest; in all {aot.cost_words(cost)}",
        *aot.kernel_lines(program, chip),
        *aot.launch_lines(compiled, counts),
    ]
    for share in (1.0, 0.3):
        whole = forward + share * backward + recursion + rest
        lines.append(
            f"  with {100 * share:.0f} % of the tiles backward: {whole:.3f} s, "
            f"{whole / floor:.2f} x the floor of {floor:.3f} s"
        )
    return Report([row], "\n".join(lines))
