"""How fast a configuration trains here: the seconds of a step, and which parts take them."""

import collections
import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.benchmarks.cases import Shape, largest
from tdt_jax.benchmarks.report import Report
from tdt_jax.benchmarks.timing import feed_forward_rate, in_subprocess, timed
from tdt_jax.benchmarks.train_step_aot import step_flops
from tdt_jax.config import Config
from tdt_jax.profiling import hlo
from tdt_jax.profiling.step_parts import part_of
from tdt_jax.runtime import sharding
from tdt_jax.runtime.pytree import num_parameters
from tdt_jax.training.step import BatchArrays, init_state, train_step

SHAPE = Shape(15.0, 60, 4)  # of a preset's batch


class StepCost(NamedTuple):
    """The cost of a training step on all devices, its arrays already there."""

    compile_seconds: float
    seconds: float  # the median
    audio_seconds: float
    model_flops: float  # products of the model on all devices, without what is computed again
    peak_bytes: int | None  # of the device's memory, where it reports it
    parts: dict[str, float]  # seconds that threads (or streams) were busy with each of PARTS


def train_report(name: str, config: Config, shape: Shape | None, *, repeats: int) -> Report:
    """Measures a configuration on noise.

    Args:
      name: to print.
      config: its model, loss and optimizer are trained.
      shape: of each device's batch; None: of the last bucket.
      repeats: steps of which the median counts, after one that does not.

    Raises:
      ValueError: if the loss is not finite, or the bucket cannot be split among the devices.
    """
    shape = shape or largest(config.data.buckets, jax.device_count())
    rate = in_subprocess(feed_forward_rate, config.model.encoder.width, config.model.dtype)
    return make_report(name, config, shape, _measure(config, shape, repeats), rate)


def _measure(config: Config, shape: Shape, repeats: int) -> StepCost:
    """Runs a step to warm up, `repeats` to measure, and one to profile."""
    mesh = sharding.make_mesh(fsdp=config.training.fsdp)
    key = jax.random.key(0)
    placed = sharding.parameter_shardings(jax.eval_shape(lambda: init_state(config, key)), mesh)
    state = jax.jit(init_state, static_argnums=0, out_shardings=placed)(config, key)
    batch = sharding.shard_batch(noise(config, shape, shape.rows * mesh.size), mesh)
    lowered = train_step.lower(state, batch, key, config=config, mesh=mesh)
    compile_seconds, step = timed(lowered.compile)

    def run(state):
        state, metrics = step(state, batch, key)
        if not np.isfinite(float(metrics.loss)):  # which waits for the step
            raise ValueError(f"the loss is {float(metrics.loss)}")
        return state

    state, laps = run(state), []
    for _ in range(repeats):
        seconds, state = timed(lambda state=state: run(state))
        laps.append(seconds)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run(state)
        parts = busy_seconds(Path(folder), step.as_text() or "")
    memory = jax.local_devices()[0].memory_stats() or {}
    return StepCost(
        compile_seconds,
        float(np.median(laps)),
        shape.seconds * shape.rows * mesh.size,
        float(step_flops(config, shape)[0]) * mesh.size,
        memory.get("peak_bytes_in_use"),
        parts,
    )


def noise(config: Config, shape: Shape, num_rows: int) -> BatchArrays:
    """Returns a batch of white noise and random labels that fills its shape."""
    rng = np.random.default_rng(0)
    num_samples = round(shape.seconds * config.model.features.sample_rate)
    samples = np.float32(0.1) * rng.standard_normal((num_rows, num_samples), dtype=np.float32)
    labels = rng.integers(0, config.model.vocab_size, (num_rows, shape.tokens), dtype=np.int32)
    num_samples = np.full(num_rows, num_samples, np.int32)
    num_labels = np.full(num_rows, shape.tokens, np.int32)
    return BatchArrays(*map(jnp.asarray, (samples, num_samples, labels, num_labels)))


def busy_seconds(folder: Path, text: str) -> dict[str, float]:
    """Returns the seconds of each part, from a profile.

    Args:
      folder: into which the profiler has written.
      text: of the compiled program.
    """
    (path,) = folder.rglob("*.xplane.pb")
    origins = hlo.origins(text)
    seconds: dict[str, float] = collections.defaultdict(float)
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            for event in line.events:
                name = dict(event.stats).get("hlo_op", event.name)
                operation = origins.get(name)
                if operation is not None and operation.opcode not in hlo.CALLS:
                    seconds[part_of(operation)] += event.duration_ns / 1e9
    return dict(seconds)


def make_report(name: str, config: Config, shape: Shape, cost: StepCost, rate: float) -> Report:
    """Returns the report of a step; `rate` is that of a product alone, in flop/s of one device."""
    num_devices = jax.device_count()
    peak = "" if cost.peak_bytes is None else f", {cost.peak_bytes / 1e9:.1f} GB at the peak"
    share = cost.model_flops / (cost.seconds * rate * num_devices)
    parameters = num_parameters(jax.eval_shape(lambda: init_state(config, jax.random.key(0)).model))
    lines = [
        f"{name}: {parameters / 1e6:.1f} M parameters, {config.model.dtype}, {shape.rows} x "
        f"{shape.seconds:g} s with {shape.tokens} tokens on each of {num_devices} "
        f"{jax.devices()[0].device_kind}",
        f"  {cost.seconds:.3f} s a step (compiled in {cost.compile_seconds:.0f} s): "
        f"{cost.audio_seconds / cost.seconds:.1f} s of audio a second{peak}",
        f"  {cost.model_flops / 1e9:.0f} GFLOP of the model, {100 * share:.0f} % of the rate of "
        f"products alone ({rate / 1e9:.0f} GFLOP/s)",
    ]
    total = sum(cost.parts.values())
    if total:
        parts = sorted(cost.parts.items(), key=lambda item: item[1], reverse=True)
        shares = (f"{part} {100 * seconds / total:.0f}" for part, seconds in parts)
        lines.append("  of the busy time, %: " + ", ".join(shares))
    return Report([{"name": name, **cost._asdict()}], "\n".join(lines))
