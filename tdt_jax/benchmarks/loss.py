"""How fast and how lean the loss is, against the matrix products it needs and against its peers.

Every measurement runs in a process of its own, one after another, so that peaks of memory are its
own. Figures of one call compare with each other, and with nothing else.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator

import numpy as np

from tdt_jax.benchmarks.cases import DURATIONS, SIGMA, Case, inputs, make_joint
from tdt_jax.benchmarks.timing import (
    available_bytes,
    in_subprocess,
    installed,
    median_seconds,
    peak_since,
    reset_peak,
)

OURS, FULL, PEER = "tdt_jax", "tdt_jax, full logits", "transformers on CPU"


@dataclasses.dataclass
class Result:
    """One way to compute the loss and its gradients, measured."""

    seconds: float  # forward and backward, the median
    compile_seconds: float
    temporary_bytes: int | None  # of the compiled program, by XLA's own account
    peak_bytes: int | None  # by which the process, or the device's memory, grew at its peak
    losses: list[float]
    device: str


def loss_table(
    cases: list[Case], *, dtype: str, repeats: int, peers: bool
) -> Iterator[tuple[Case, float, dict[str, Result | str]]]:
    """For each case: the matrix product rate (flop/s), and results by method, or why there is none.

    Raises:
      ValueError: if peers are asked for that are not installed.
    """
    if peers and (missing := [x for x in ("torch", "transformers") if not installed(x)]):
        raise ValueError(f"--peers needs {' and '.join(missing)} (pip install) beside tdt_jax")
    methods: dict[str, Callable] = {
        OURS: functools.partial(measure_lean, dtype=dtype),
        "tdt_jax, neglect=0": functools.partial(measure_lean, dtype=dtype, neglect=0.0),
        FULL: functools.partial(measure_full, dtype=dtype),
    }
    if peers:
        methods[PEER] = measure_transformers
    for case in cases:
        rate = in_subprocess(matmul_rate, case, dtype)
        results: dict[str, Result | str] = {}
        for method, measure in methods.items():
            holds_logits = method in (FULL, PEER)
            need = 7 * 4 * case.num_logits if holds_logits else 0
            if need > available_bytes():
                results[method] = f"needs about {need / 1e9:.0f} GB"
            else:
                try:
                    results[method] = in_subprocess(measure, case, repeats=repeats)
                except (RuntimeError, MemoryError) as error:  # out of memory, or killed for it
                    results[method] = f"failed: {str(error).partition(chr(10))[0] or type(error)}"
        yield case, rate, results


def matmul_rate(case: Case, dtype: str) -> float:
    """The best flop/s of the heads' product and of its two gradients, at several heights."""
    import jax
    import jax.numpy as jnp

    matmul = functools.partial(
        jnp.matmul,
        precision=jax.lax.Precision.HIGHEST,  # as the joint network's
        preferred_element_type=jnp.float32,
    )
    best, outputs = 0.0, case.vocab + 1 + len(DURATIONS)
    for rows in (2048, 8192):
        x, kernel, gradient = (
            jnp.ones(shape, dtype)
            for shape in ((rows, case.width), (case.width, outputs), (rows, outputs))
        )
        for product, pair in (
            (lambda x, w: matmul(x, w), (x, kernel)),
            (lambda g, w: matmul(g, w.T), (gradient, kernel)),
            (lambda x, g: matmul(x.T, g), (x, gradient)),
        ):
            function = jax.jit(product)
            seconds, _ = median_seconds(
                lambda f=function, pair=pair: jax.block_until_ready(f(*pair)), 10
            )
            best = max(best, 2 * rows * case.width * outputs / seconds)
    return best


def measure_lean(case: Case, *, dtype: str, repeats: int, neglect: float = 1e-6) -> Result:
    """`tdt_jax.transducer_loss`, from frames and states to the gradients of all."""
    from tdt_jax.losses.tiled import transducer_loss

    def losses(joint, frames, states, *lengths):
        options = dict(durations=DURATIONS, sigma=SIGMA, neglect=neglect)
        return transducer_loss(joint, frames, states, *lengths, **options)

    return _measure_jax(losses, case, dtype, repeats)


def measure_full(case: Case, *, dtype: str, repeats: int) -> Result:
    """`tdt_jax.tdt_loss` on the logits of all nodes."""
    from tdt_jax.losses.dense import tdt_loss

    def losses(joint, frames, states, *lengths):
        return tdt_loss(*joint(frames, states), *lengths, durations=DURATIONS, sigma=SIGMA)

    return _measure_jax(losses, case, dtype, repeats)


def _measure_jax(losses, case: Case, dtype: str, repeats: int) -> Result:
    import jax
    import jax.numpy as jnp

    arrays = inputs(case)
    joint = make_joint(case, dtype, arrays)
    arguments = (
        joint,
        jnp.asarray(arrays["frames"], dtype),
        jnp.asarray(arrays["states"], dtype),
        jnp.asarray(arrays["labels"]),
        jnp.full((case.batch,), case.frames),
        jnp.full((case.batch,), case.labels),
    )

    def objective(*arguments):
        each = losses(*arguments)
        return each.sum(), each

    start = time.perf_counter()
    step = jax.jit(jax.value_and_grad(objective, argnums=(0, 1, 2), has_aux=True))
    compiled = step.lower(*arguments).compile()
    compile_seconds = time.perf_counter() - start
    before = reset_peak()
    seconds, ((_, each), _) = median_seconds(
        lambda: jax.block_until_ready(compiled(*arguments)), repeats
    )
    device, peak = jax.devices()[0], peak_since(before)
    if device.platform != "cpu":
        peak = (device.memory_stats() or {}).get("peak_bytes_in_use")  # inputs and all
    temporary = compiled.memory_analysis().temp_size_in_bytes
    each = np.asarray(each, np.float64).tolist()
    return Result(seconds, compile_seconds, temporary, peak, each, device.device_kind)


def measure_transformers(case: Case, *, repeats: int) -> Result:
    """Hugging Face's tdt_loss in float32 on the CPU, behind the same joint network in torch."""
    import torch
    from transformers.loss.loss_tdt import tdt_loss

    arrays = {name: torch.from_numpy(array) for name, array in inputs(case).items()}
    labels = arrays.pop("labels").long()
    for array in arrays.values():
        array.requires_grad_()
    head = torch.cat([arrays["token_head"], arrays["duration_head"]], dim=1).detach()
    head.requires_grad_()
    lengths = torch.full((case.batch,), case.frames), torch.full((case.batch,), case.labels)

    def step():
        frames = (arrays["frames"] @ arrays["frame_projection"])[:, :, None]
        states = (arrays["states"] @ arrays["state_projection"])[:, None]
        logits = torch.relu(frames + states) @ head
        losses = tdt_loss(
            logits[..., : case.vocab + 1],
            logits[..., case.vocab + 1 :],
            labels,
            *lengths,
            blank_token_id=case.vocab,
            durations=list(DURATIONS),
            sigma=SIGMA,
            reduction="none",
        )
        losses.sum().backward()
        for array in (*arrays.values(), head):
            array.grad = None
        return losses.detach()

    before = reset_peak()
    seconds, losses = median_seconds(step, repeats)
    device = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    return Result(seconds, 0.0, None, peak_since(before), losses.double().tolist(), device)


def describe(case: Case, rate: float, results: dict[str, Result | str]) -> str:
    """A table of one case, to read."""
    floor = case.flops / rate
    lines = [
        f"{case.name}: B={case.batch} T={case.frames} U={case.labels} V={case.vocab} "
        f"J={case.width}; {case.flops / 1e9:.0f} GFLOP at {rate / 1e9:.0f} GFLOP/s: "
        f"floor {floor:.3f} s; {4 * case.num_logits / 1e6:.0f} MB of logits"
    ]
    first = results[OURS]
    if isinstance(first, Result):
        lines[0] += f"; on {first.device}"
    for method, result in results.items():
        if isinstance(result, str):
            lines.append(f"  {method:21s} {result}")
            continue
        peak, temporary = (
            "" if x is None else f"{x / 1e6:6.0f} MB"
            for x in (result.peak_bytes, result.temporary_bytes)
        )
        line = (
            f"  {method:21s}{result.seconds:8.3f} s {result.seconds / floor:6.2f} x floor  "
            f"peak {peak:>9s}  temporaries {temporary:>9s}"
        )
        if result is not first and isinstance(first, Result):
            error = np.max(np.abs(np.divide(result.losses, first.losses) - 1))
            line += f"  {result.seconds / first.seconds:5.1f} x the time"
            if result.peak_bytes and first.peak_bytes:
                line += f", {result.peak_bytes / first.peak_bytes:5.1f} x the peak"
            line += f"; loss differs by {error:.0e}"
        lines.append(line)
    return "\n".join(lines)
