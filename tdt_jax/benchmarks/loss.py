"""The loss's speed and memory, beside the matrix products that it needs and transformers' loss.

Every measurement runs in a process of its own, one after another, so that peaks of memory are its
own. Compare the figures of one call with each other, and with nothing else.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.benchmarks.cases import DURATIONS, SIGMA, Case, loss_inputs, make_joint
from tdt_jax.benchmarks.peers import measure_peer_loss, require_peers
from tdt_jax.benchmarks.report import Report
from tdt_jax.benchmarks.timing import (
    Measurement,
    available_bytes,
    heads_rate,
    in_subprocess,
    measure,
)
from tdt_jax.losses.dense import tdt_loss
from tdt_jax.losses.tiled import transducer_loss

TILED, EXACT, DENSE = "tdt_jax", "tdt_jax, neglect=0", "tdt_jax, full logits"
PEER = "transformers on CPU"

Result = tuple[Measurement, list[float]]  # the cost of loss and gradients, and the losses


def loss_reports(
    cases: Sequence[Case], *, dtype: str, repeats: int, peers: bool
) -> Iterator[Report]:
    """Yields a report for each case, with one row that holds the figures of every method.

    Args:
      cases: sizes of batches.
      dtype: of frames, states and the joint network; transformers' are float32.
      repeats: runs of which the median counts, after one that does not.
      peers: whether to measure transformers' loss too.

    Raises:
      ValueError: if transformers is not installed but asked for.
    """
    if peers:
        require_peers()
    methods: dict[str, Callable[..., Result]] = {
        TILED: functools.partial(measure_tiled, dtype=dtype),
        EXACT: functools.partial(measure_tiled, dtype=dtype, neglect=0.0),
        DENSE: functools.partial(measure_dense, dtype=dtype),
    }
    if peers:
        methods[PEER] = measure_peer_loss
    for case in cases:
        rate = in_subprocess(heads_rate, case.width, case.num_outputs, dtype)
        results: dict[str, Result | str] = {}
        for name, method in methods.items():
            need = 7 * 4 * case.num_logits if name in (DENSE, PEER) else 0
            if need > available_bytes():
                results[name] = f"needs about {need / 1e9:.0f} GB"
                continue
            try:
                results[name] = in_subprocess(method, case, repeats=repeats)
            except (RuntimeError, MemoryError) as error:  # out of memory, or killed for it
                results[name] = f"failed: {str(error).partition(chr(10))[0] or type(error)}"
        yield make_report(case, rate, results)


def measure_tiled(case: Case, *, dtype: str, repeats: int, neglect: float = 1e-6) -> Result:
    """Returns the cost of `tdt_jax.transducer_loss` with the joint network, and the losses."""

    def losses(joint, frames, states, *lengths):
        options = dict(durations=DURATIONS, sigma=SIGMA, neglect=neglect)
        return transducer_loss(joint, frames, states, *lengths, **options)

    return _measure(losses, case, dtype, repeats)


def measure_dense(case: Case, *, dtype: str, repeats: int) -> Result:
    """Returns the cost of `tdt_jax.tdt_loss` on the logits of all nodes, and the losses."""

    def losses(joint, frames, states, *lengths):
        return tdt_loss(*joint(frames, states), *lengths, durations=DURATIONS, sigma=SIGMA)

    return _measure(losses, case, dtype, repeats)


def _measure(losses: Callable[..., jax.Array], case: Case, dtype: str, repeats: int) -> Result:
    """Returns the cost of losses and their gradients in joint, frames and states."""
    inputs = loss_inputs(case)
    arguments = (
        make_joint(case, dtype, inputs),
        jnp.asarray(inputs["frames"], dtype),
        jnp.asarray(inputs["states"], dtype),
        inputs["labels"],
        np.full(case.batch, case.frames, np.int32),
        np.full(case.batch, case.labels, np.int32),
    )

    def objective(*arguments):
        each = losses(*arguments)
        return each.sum(), each

    step = jax.jit(jax.value_and_grad(objective, argnums=(0, 1, 2), has_aux=True))
    measurement, ((_, each), _) = measure(step, *arguments, repeats=repeats)
    return measurement, np.asarray(each, np.float64).tolist()


def make_report(case: Case, rate: float, results: Mapping[str, Result | str]) -> Report:
    """Returns the report of one case.

    Args:
      case: its sizes.
      rate: of the heads' products alone, in flop/s.
      results: of each method; a text says why there is none.
    """
    floor = case.flops / rate
    heading = (
        f"{case.name}: B={case.batch} T={case.frames} U={case.labels} V={case.vocab} "
        f"J={case.width}; {case.flops / 1e9:.0f} GFLOP at {rate / 1e9:.0f} GFLOP/s: "
        f"floor {floor:.3f} s; {4 * case.num_logits / 1e6:.0f} MB of logits"
    )
    first = results[TILED]
    if not isinstance(first, str):
        heading += f"; on {first[0].device}"
    lines = [_line(name, result, first, floor) for name, result in results.items()]
    methods = {
        name: result if isinstance(result, str) else {**result[0]._asdict(), "losses": result[1]}
        for name, result in results.items()
    }
    rates = {"matmul_flops_per_second": rate, "floor_seconds": floor}
    row = {**case._asdict(), **rates, "methods": methods}
    return Report([row], "\n".join([heading, *lines]))


def _line(name: str, result: Result | str, first: Result | str, floor: float) -> str:
    """Returns a method's line of the table, which compares it with the first method."""
    if isinstance(result, str):
        return f"  {name:21s} {result}"
    cost, losses = result
    peak, temporary = (
        "" if x is None else f"{x / 1e6:6.0f} MB" for x in (cost.peak_bytes, cost.temporary_bytes)
    )
    line = (
        f"  {name:21s}{cost.seconds:8.3f} s {cost.seconds / floor:6.2f} x floor  "
        f"peak {peak:>9s}  temporaries {temporary:>9s}"
    )
    if isinstance(first, str) or result is first:
        return line
    own_cost, own_losses = first
    line += f"  {cost.seconds / own_cost.seconds:5.1f} x the time"
    if cost.peak_bytes and own_cost.peak_bytes:
        line += f", {cost.peak_bytes / own_cost.peak_bytes:5.1f} x the peak"
    error = np.max(np.abs(np.divide(losses, own_losses) - 1))
    return f"{line}; loss differs by {error:.0e}"
