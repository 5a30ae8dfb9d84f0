"""The decoder alone, as the compiler of a TPU or of a GPU estimates it without one."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from tdt_jax.benchmarks import aot
from tdt_jax.benchmarks.cases import MODELS, choose
from tdt_jax.benchmarks.random_decoder import iteration_bytes
from tdt_jax.benchmarks.report import Report
from tdt_jax.decoding.greedy import greedy_decode, turns_in_block
from tdt_jax.models.transducer import Transducer, abstract_model
from tdt_jax.profiling import chip as chips
from tdt_jax.profiling import hlo
from tdt_jax.profiling import target as targets
from tdt_jax.profiling.target import Compiled, Target

TURN = "while"  # part of the scope of the decoder's loop


def decoder_aot_reports(
    names: Sequence[str], *, batches: Sequence[int], seconds: float, dtype: str, target: str
) -> Iterator[Report]:
    """Yields a report for each size of `cases.MODELS` and number of utterances.

    Args:
      names, batches, seconds: as of `decoder.decoder_reports`.
      dtype: of parameters and computation.
      target: as of `profiling.target.find`; one of its devices decodes.

    Raises:
      ValueError: for an unknown size, and as `profiling.target.find` and `.compile`.
    """
    chosen, device = choose(names, MODELS), targets.find(target)
    for name, config in chosen.items():
        model = abstract_model(dataclasses.replace(config, dtype=dtype), dtype)
        num_frames = round(seconds / config.seconds_per_frame)
        for batch in batches:
            compiled = compile_decoder(device, model, batch, num_frames)
            num_turns = turns_in_block(device.platform, batch, num_frames)
            row, lines = decoder_figures(compiled, model, device, num_turns=num_turns)
            what = {"case": name, "batch": batch, "dtype": dtype, "target": device.name}
            first = (
                f"{name}: decoder of {batch} x {num_frames} frames, {dtype}, one "
                f"{device.device_name}, compiled in {compiled.seconds:.0f} s"
            )
            yield Report([{**what, **row}], "\n".join([first, *lines]))


def compile_decoder(device: Target, model: Transducer, batch: int, num_frames: int) -> Compiled:
    """Returns `greedy_decode` of a model of shapes, compiled for so many utterances and frames.

    Raises:
      ValueError: as `profiling.target.compile`.
    """
    config = model.config
    frames = jax.ShapeDtypeStruct(
        (batch, num_frames, config.encoder.width), jnp.dtype(config.dtype)
    )
    lengths = jax.ShapeDtypeStruct((batch,), jnp.int32)
    options = dict(max_symbols=config.max_symbols)
    return aot.compile_on_one(device, greedy_decode, model, frames, lengths, **options)


def decoder_figures(
    compiled: Compiled, model: Transducer, device: Target, *, num_turns: int
) -> tuple[dict[str, Any], list[str]]:
    """Returns the figures of a compiled decoder, and lines about them.

    A turn is a step of each utterance, or those within its window; an iteration of the loop takes
    `num_turns` (`greedy.turns_in_block`).
    """
    chip = device.chip
    program = hlo.read(compiled.text, {TURN: 1})
    once = chips.cost_of(program, chip)
    before = chips.cost_of(hlo.read(compiled.text, {TURN: 0}), chip)
    turn = (once.busy - before.busy) / num_turns
    size = iteration_bytes(model)
    floors = size.heads / chip.bandwidth, sum(size) / chip.bandwidth
    counts = compiled.counts({TURN: 1})
    row = {
        **aot.figures(compiled, once, counts),
        "turns_in_block": num_turns,
        "turn_seconds": turn,
        "before_seconds": before.busy,
        "turn_bytes": size._asdict(),
        "turn_floor_seconds": dict(zip(("blank", "label"), floors, strict=True)),
    }
    if counts is not None:
        (loop,) = (loop for loop in counts.loops if TURN in loop.scope)
        row["turn_launches"] = {
            name: number / num_turns for name, number in loop.launches._asdict().items()
        }
    lines = [
        f"  a turn reads {size.heads / 1e6:.1f} MB of weights, and {size.predictor / 1e6:.1f} MB "
        f"more for a label: {1e6 * floors[0]:.1f} and {1e6 * floors[1]:.1f} us at "
        f"{chip.bandwidth / 1e12:.2f} TB/s",
        f"  estimated: {1e6 * turn:.1f} us a turn with a label, without the time that launches "
        f"take ({num_turns} turns are an iteration of the loop); {1e3 * before.busy:.2f} ms before "
        "and after the loop",
        aot.memory_line(compiled, device),
        *aot.kernel_lines(program, chip),
        *aot.launch_lines(compiled, counts),
    ]
    return row, lines
