"""How fast a configuration trains here: a step's seconds, and what it spends them on."""

import collections
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from tdt_jax import presets
from tdt_jax.benchmarks.cases import Shape, largest
from tdt_jax.benchmarks.encoder import matmul_rate
from tdt_jax.benchmarks.train_step_aot import step_flops
from tdt_jax.config import Config
from tdt_jax.profiling import hlo
from tdt_jax.profiling.step_parts import part_of
from tdt_jax.runtime import sharding
from tdt_jax.runtime.pytree import num_parameters
from tdt_jax.training.step import BatchArrays, init_state, train_step

CASES = {
    "micro": presets.MICRO,
    "tiny": presets.TINY,
    "small": presets.SMALL,
    "medium": presets.MEDIUM,
    "large": presets.LARGE,
    "xlarge": presets.XLARGE,
}
SHAPE = Shape(15.0, 60, 4)


class Speed(NamedTuple):
    """Of a training step on all devices, its arrays already there."""

    compile_seconds: float
    seconds: float  # the median
    audio_seconds: float
    model_flops: float  # products of the model on all devices, without what is computed again
    peak_bytes: int | None  # of the device's memory, where it tells
    parts: dict[str, float]  # seconds that threads (or streams) were busy with each of PARTS


def case(name: str) -> Config:
    """A preset as a configuration."""
    if name not in CASES:
        raise ValueError(f"no case {name!r}; there are {', '.join(CASES)}")
    return Config(model=CASES[name])


def measure(config: Config, shape: Shape, *, repeats: int) -> Speed:
    """Train on noise of a shape: a step to warm up, `repeats` to measure, one to profile."""
    mesh = sharding.make_mesh(fsdp=config.training.fsdp)
    key = jax.random.key(0)
    placed = sharding.parameter_shardings(jax.eval_shape(lambda: init_state(config, key)), mesh)
    state = jax.jit(init_state, static_argnums=0, out_shardings=placed)(config, key)
    batch = sharding.shard_batch(noise(config, shape, shape.rows * mesh.size), mesh)
    start = time.perf_counter()
    step = train_step.lower(state, batch, key, config=config, mesh=mesh).compile()
    compile_seconds = time.perf_counter() - start

    def run(state):
        state, metrics = step(state, batch, key)
        if not np.isfinite(float(metrics.loss)):  # which waits for the step
            raise ValueError(f"the loss is {float(metrics.loss)}")
        return state

    state = run(state)
    laps = []
    for _ in range(repeats):
        start = time.perf_counter()
        state = run(state)
        laps.append(time.perf_counter() - start)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run(state)
        parts = busy(Path(folder), step.as_text())
    memory = jax.local_devices()[0].memory_stats() or {}
    return Speed(
        compile_seconds,
        float(np.median(laps)),
        shape.seconds * shape.rows * mesh.size,
        float(step_flops(config, shape)[0]) * mesh.size,
        memory.get("peak_bytes_in_use"),
        parts,
    )


def noise(config: Config, shape: Shape, num_rows: int) -> BatchArrays:
    """A batch of white noise and random labels that fills its shape."""
    rng = np.random.default_rng(0)
    num_samples = round(shape.seconds * config.model.features.sample_rate)
    labels = rng.integers(0, config.model.vocab_size, (num_rows, shape.tokens))
    return BatchArrays(
        rng.standard_normal((num_rows, num_samples), dtype=np.float32) * np.float32(0.1),
        np.full(num_rows, num_samples, np.int32),
        labels.astype(np.int32),
        np.full(num_rows, shape.tokens, np.int32),
    )


def busy(folder: Path, text: str) -> dict[str, float]:
    """Seconds by part of what the profiler has written into `folder`, of a program's text."""
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


def describe(name: str, config: Config, shape: Shape, speed: Speed, rate: float) -> str:
    """A table to read; `rate` is that of a product alone, in flop/s of one device."""
    num_devices = jax.device_count()
    peak = "" if speed.peak_bytes is None else f", {speed.peak_bytes / 1e9:.1f} GB at the peak"
    share = speed.model_flops / (speed.seconds * rate * num_devices)
    parameters = num_parameters(jax.eval_shape(lambda: init_state(config, jax.random.key(0)).model))
    lines = [
        f"{name}: {parameters / 1e6:.1f} M parameters, {config.model.dtype}, {shape.rows} x "
        f"{shape.seconds:g} s with {shape.tokens} tokens on each of {num_devices} "
        f"{jax.devices()[0].device_kind}",
        f"  {speed.seconds:.3f} s a step (compiled in {speed.compile_seconds:.0f} s): "
        f"{speed.audio_seconds / speed.seconds:.1f} s of audio a second{peak}",
        f"  {speed.model_flops / 1e9:.0f} GFLOP of the model, {100 * share:.0f} % of the rate of "
        f"products alone ({rate / 1e9:.0f} GFLOP/s)",
    ]
    total = sum(speed.parts.values())
    if total:
        lines.append("  of the busy time, %: " + ", ".join(
            f"{part} {100 * speed.parts[part] / total:.0f}"
            for part in sorted(speed.parts, key=speed.parts.get, reverse=True)
        ))  # fmt: skip
    return "\n".join(lines)


def report(name: str, config: Config, shape: Shape | None, *, repeats: int) -> str:
    """Measure a configuration on a batch of a shape, by default its last bucket's."""
    shape = shape or largest(config.data.buckets, jax.device_count())
    rate = matmul_rate(config.model, config.model.dtype)
    return describe(name, config, shape, measure(config, shape, repeats=repeats), rate)
