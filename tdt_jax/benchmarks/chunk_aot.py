"""A streaming step, as the compiler of a TPU or of a GPU estimates it without one."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from tdt_jax.benchmarks import aot
from tdt_jax.benchmarks.cases import CAUSAL_MODELS, choose
from tdt_jax.benchmarks.chunk import Context, context_of, num_samples, start, step
from tdt_jax.benchmarks.report import Report
from tdt_jax.config import ModelConfig
from tdt_jax.models.transducer import abstract_model
from tdt_jax.profiling import chip as chips
from tdt_jax.profiling import hlo
from tdt_jax.profiling import target as targets
from tdt_jax.profiling.target import Target


def chunk_aot_reports(
    names: Sequence[str], *, batches: Sequence[int], rights: Sequence[int], dtype: str, target: str
) -> Iterator[Report]:
    """Yields a report for each size of `cases.CAUSAL_MODELS`, look-ahead and number of streams.

    Args:
      names, batches, rights: as of `chunk.chunk_reports`.
      dtype: of parameters and computation.
      target: as of `profiling.target.find`; one of its devices is used.

    Raises:
      ValueError: for an unknown size or look-ahead, and as `profiling.target.find` and `.compile`.
    """
    device = targets.find(target)
    for name, config in choose(names, CAUSAL_MODELS).items():
        for right in rights:
            context = context_of(config, right)
            for batch in batches:
                yield _report(name, config, context, batch, dtype, device)


def _report(
    name: str, config: ModelConfig, context: Context, batch: int, dtype: str, device: Target
) -> Report:
    chip = device.chip
    model = abstract_model(dataclasses.replace(config, dtype=dtype), dtype)
    state = jax.eval_shape(lambda model: start(model, batch, context), model)
    samples = jax.ShapeDtypeStruct((batch, num_samples(config, context)), jnp.float32)
    lengths = jax.ShapeDtypeStruct((batch,), jnp.int32)
    compiled = aot.compile_on_one(device, step, model, samples, lengths, state)
    # The chunk of all streams is complete at once, and a frame takes an iteration of the decoder.
    iterations = {"encode_chunk": 1, "decode_chunk": context[1] + 1}
    program = hlo.read(compiled.text, iterations)
    cost = chips.cost_of(program, chip)
    counts, memory = compiled.counts(iterations), compiled.memory
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
        "target": device.name,
        **aot.figures(compiled, cost, counts),
        "floor_seconds": floor,
        "parameter_bytes": model_bytes,
        "state_bytes": state_bytes,
        "donated_bytes": memory.alias_size_in_bytes,
    }
    duration = 0.08 * (context[1] + 1)
    lines = [
        f"{name}: a step of {batch} x {1e3 * duration:g} ms in context {context}, {dtype}, one "
        f"{device.device_name}, compiled in {compiled.seconds:.0f} s",
        f"  estimated: {aot.cost_words(cost)}; {batch * duration / cost.busy:.0f} x real time; "
        f"reading parameters and state and writing the state takes {1e3 * floor:.1f} ms",
        f"  memory, GB: {model_bytes / 1e9:.2f} of parameters, {state_bytes / 1e9:.2f} of state "
        f"(updated in place: {memory.alias_size_in_bytes / 1e9:.2f}), "
        f"{memory.temp_size_in_bytes / 1e9:.2f} of temporaries, of {chip.memory / 1e9:.0f}",
        *aot.kernel_lines(program, chip),
        *aot.launch_lines(compiled, counts),
    ]
    return Report([row], "\n".join(lines))
