"""The encoder, as the compiler of a TPU or of a GPU estimates it without one."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from tdt_jax.benchmarks import aot
from tdt_jax.benchmarks.cases import MODELS, choose, num_features
from tdt_jax.benchmarks.encoder import encoder_flops
from tdt_jax.benchmarks.report import Report
from tdt_jax.models.transducer import Transducer, abstract_model, encode
from tdt_jax.profiling import chip as chips
from tdt_jax.profiling import hlo
from tdt_jax.profiling import target as targets
from tdt_jax.profiling.target import Compiled, Target


def encoder_aot_reports(
    names: Sequence[str],
    *,
    seconds: float,
    batch: int,
    dtype: str,
    attention_context: tuple[int, int] | None,
    target: str,
) -> Iterator[Report]:
    """Yields a report for each size of `cases.MODELS`.

    Args:
      names, seconds, batch, dtype, attention_context: as of `encoder.encoder_reports`.
      target: as of `profiling.target.find`; one of its devices encodes.

    Raises:
      ValueError: for an unknown size, and as `profiling.target.find` and `.compile`.
    """
    chosen, device = choose(names, MODELS), targets.find(target)
    for name, full in chosen.items():
        encoder = dataclasses.replace(full.encoder, attention_context=attention_context)
        config = dataclasses.replace(full, encoder=encoder, dtype=dtype)
        model = abstract_model(config, dtype)
        compiled = compile_encoder(device, model, batch, seconds)
        row, lines = encoder_figures(compiled, model, device, batch, seconds)
        what = {"case": name, "batch": batch, "dtype": dtype, "target": device.name}
        first = (
            f"{name}: encoder of {batch} x {seconds:g} s, attention "
            f"{attention_context or 'full'}, {dtype}, one {device.device_name}, compiled in "
            f"{compiled.seconds:.0f} s"
        )
        yield Report([{**what, **row}], "\n".join([first, *lines]))


def compile_encoder(device: Target, model: Transducer, batch: int, seconds: float) -> Compiled:
    """Returns `encode` of a model of shapes, compiled for so many utterances of so many seconds.

    Raises:
      ValueError: as `profiling.target.compile`.
    """
    shape = batch, num_features(seconds), model.config.features.num_mels
    features = jax.ShapeDtypeStruct(shape, jnp.float32)
    lengths = jax.ShapeDtypeStruct((batch,), jnp.int32)
    return aot.compile_on_one(device, encode, model, features, lengths)


def encoder_figures(
    compiled: Compiled, model: Transducer, device: Target, batch: int, seconds: float
) -> tuple[dict[str, Any], list[str]]:
    """Returns the figures of a compiled encoder, and lines about them."""
    program = hlo.read(compiled.text)
    cost = chips.cost_of(program, device.chip)
    counts, flops = compiled.counts(), encoder_flops(model.config, seconds, batch)
    row = {**aot.figures(compiled, cost, counts), "flops": flops}
    lines = [
        f"  estimated: {aot.cost_words(cost)}; {batch * seconds / cost.busy:,.0f} x real time, "
        f"{100 * flops / (cost.busy * device.chip.peak):.1f} % of the peak",
        aot.memory_line(compiled, device),
        *aot.kernel_lines(program, device.chip),
        *aot.launch_lines(compiled, counts),
    ]
    return row, lines
