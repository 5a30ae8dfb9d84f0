"""A streaming step, as the compiler of a TPU or of a GPU estimates it without one."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from tdt_jax.benchmarks.cases import CAUSAL_MODELS, choose
from tdt_jax.benchmarks.chunk import Context, context_of, num_samples, start, step
from tdt_jax.benchmarks.report import Report
from tdt_jax.benchmarks.timing import memory_of, timed
from tdt_jax.config import ModelConfig
from tdt_jax.models.transducer import abstract_model
from tdt_jax.profiling import gpu, hlo, tpu
from tdt_jax.runtime import backend


def chunk_aot_reports(
    names: Sequence[str], *, batches: Sequence[int], rights: Sequence[int], dtype: str, target: str
) -> Iterator[Report]:
    """Yields a report for each size of `cases.CAUSAL_MODELS`, look-ahead and number of streams.

    Args:
      names, batches, rights: as of `chunk.chunk_reports`.
      dtype: of parameters and computation.
      target: h100, or a TPU's topology such as v5e:2x2, of which one chip is used.

    Raises:
      ValueError: for an unknown size, look-ahead or target, and if its compiler is not installed.
    """
    for name, config in choose(names, CAUSAL_MODELS).items():
        for right in rights:
            context = context_of(config, right)
            for batch in batches:
                yield _report(name, config, context, batch, dtype, target)


def _report(
    name: str, config: ModelConfig, context: Context, batch: int, dtype: str, target: str
) -> Report:
    if target == "h100":
        platform, chip, device, options = "gpu", gpu.H100, gpu.device(), gpu.OPTIONS
    else:
        chip, device = tpu.chip_of(target), tpu.devices(target)[0]
        platform, options = "tpu", None
    sharding = SingleDeviceSharding(device)

    def placed(tree):
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
        )

    model = placed(abstract_model(dataclasses.replace(config, dtype=dtype), dtype))
    state = placed(jax.eval_shape(lambda model: start(model, batch, context), model))
    samples = jax.ShapeDtypeStruct((batch, num_samples(config, context)), jnp.float32)
    inputs = placed((samples, jax.ShapeDtypeStruct((batch,), jnp.int32)))
    with backend.assume(platform):
        lowered = step.lower(model, *inputs, state)
        seconds, compiled = timed(lambda: lowered.compile(compiler_options=options))
    # The chunk of all streams is complete at once, and a frame takes an iteration of the decoder.
    iterations = {"encode_chunk": 1, "decode_chunk": context[1] + 1}
    program = hlo.read(tpu.text_of(compiled), iterations)
    estimate, memory = program.cycles / chip.clock, memory_of(compiled)
    model_bytes, state_bytes = (
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
        for tree in (model, state)
    )
    floor = (model_bytes + 2 * state_bytes) / chip.bandwidth
    row = {
        "case": name,
        "context": context,
        "batch": batch,
        "dtype": dtype,
        "target": target,
        "compile_seconds": seconds,
        "seconds": estimate,
        "floor_seconds": floor,
        "parameter_bytes": model_bytes,
        "state_bytes": state_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "donated_bytes": memory.alias_size_in_bytes,
    }
    duration = 0.08 * (context[1] + 1)
    lines = [
        f"{name}: a step of {batch} x {1e3 * duration:g} ms in context {context}, {dtype}, one "
        f"{target.partition(':')[0]}, compiled in {seconds:.0f} s",
        f"  estimated {1e3 * estimate:.1f} ms, {batch * duration / estimate:.0f} x real time; "
        f"reading parameters and state and writing the state takes {1e3 * floor:.1f} ms",
        f"  memory, GB: {model_bytes / 1e9:.2f} of parameters, {state_bytes / 1e9:.2f} of state "
        f"(updated in place: {memory.alias_size_in_bytes / 1e9:.2f}), "
        f"{memory.temp_size_in_bytes / 1e9:.2f} of temporaries, of {chip.memory / 1e9:.0f}",
    ]
    return Report([row], "\n".join(lines))
