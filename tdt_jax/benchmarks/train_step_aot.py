"""A training step, as a compiler estimates it without its devices, data or a tokenizer."""

import collections
import dataclasses

import jax
from jax.sharding import Mesh, NamedSharding

from tdt_jax.benchmarks import aot, decoder_aot, encoder_aot
from tdt_jax.benchmarks.cases import Shape, largest
from tdt_jax.benchmarks.loss_aot import tile_iterations
from tdt_jax.benchmarks.report import Report
from tdt_jax.config import Config
from tdt_jax.decoding.greedy import turns_in_block
from tdt_jax.losses.nodes import CHUNK
from tdt_jax.models.adapters import is_partial
from tdt_jax.models.subsampling import subsampled_length
from tdt_jax.models.transducer import abstract_model
from tdt_jax.profiling import chip as chips
from tdt_jax.profiling import hlo
from tdt_jax.profiling import target as targets
from tdt_jax.profiling.chip import Chip, exchange_seconds
from tdt_jax.profiling.flops import product_flops
from tdt_jax.profiling.step_parts import PARTS, part_of
from tdt_jax.profiling.target import Compiled, Target
from tdt_jax.runtime import backend, sharding
from tdt_jax.runtime.pytree import num_parameters
from tdt_jax.training.memory import SHARE, choose_remat
from tdt_jax.training.step import (
    BatchArrays,
    gradients_and_metrics,
    init_state,
    loss_and_metrics,
    train_step,
    trained_leaves,
)


def training_report(config: Config, target: str, shape: Shape | None = None) -> Report:
    """Returns the estimates for `train_step`, `encode` and `greedy_decode`.

    Args:
      config: its `model.vocab_size` is taken as it is.
      target: as of `profiling.target.find`, such as v5e:16x16 or h100; all its devices train.
      shape: of each device's batch; None: the last bucket, split among the devices.

    Raises:
      ValueError: if the batch cannot be split, and as `profiling.target.find` and `.compile`.
    """
    device = targets.find(target)
    shape = shape or largest(config.data.buckets, len(device.devices))
    chunk = config.loss.chunk or CHUNK
    config = dataclasses.replace(config, loss=dataclasses.replace(config.loss, chunk=chunk))
    row, lines = _step(config, device, shape, chunk)
    if config.model.predictor is not None:
        lines += _recognition_lines(config, shape, device)
    return Report([row], "\n".join(lines))


def _step(config: Config, device: Target, shape: Shape, chunk: int) -> tuple[dict, list[str]]:
    """Returns the figures of a step, and lines about them."""
    mesh = sharding.make_mesh(device.devices, fsdp=config.training.fsdp)
    config, compiled = _compiled_step(config, device, shape, mesh)
    encoder = config.model.encoder
    kept = encoder.remat_policy if encoder.remat is not False else "everything"

    part = shape.rows // config.training.accumulate
    frames = _num_frames(config, shape)
    iterations = tile_iterations(device.platform, part, frames, shape.tokens, chunk)
    program, chip = hlo.read(compiled.text, iterations), device.chip
    cost, counts = chips.cost_of(program, chip, mesh.size), compiled.counts(iterations)
    with backend.assume(device.platform, kernels=False):  # whose products are not counted
        model_flops, all_flops = step_flops(config, shape)
    parameters = num_parameters(abstract_model(config.model))
    key = jax.eval_shape(lambda: jax.random.key(0))
    trained = num_parameters(
        jax.eval_shape(lambda key: trained_leaves(init_state(config, key), config), key)
    )
    row = {
        "target": device.name,
        "parameters": parameters,
        "trained": trained,
        "kept": kept,
        **aot.figures(compiled, cost, counts),
        "model_flops": model_flops,
        "flops": all_flops,
    }
    lines = [
        f"{device.name}: {mesh.size} devices, parameters split among {config.training.fsdp}; "
        f"{parameters / 1e6:.0f} M parameters, {config.model.dtype}",
        *([f"trained: {trained / 1e6:.1f} M parameters"] if is_partial(config.tuning) else []),
        f"a step of {shape.rows} x {shape.seconds:g} s with {shape.tokens} tokens on each, "
        f"compiled in {compiled.seconds:.0f} s",
        f"  kept of each block of the encoder for the backward pass: {kept}",
        aot.memory_line(compiled, device),
        f"  products, TFLOP: {model_flops / 1e12:.2f} of the model, {all_flops / 1e12:.2f} with "
        "what is computed again",
        f"  estimated computation: {aot.cost_words(cost)}",
        f"  estimated exchange: {1e3 * cost.exchange:.1f} ms, of which {1e3 * cost.exposed:.1f} "
        "not hidden by computation",
    ]
    for name, more in (
        ("nothing", cost.exchange),
        ("as scheduled", cost.exposed),
        ("all", max(0.0, cost.exchange - cost.busy)),
    ):
        step = cost.busy + more
        lines.append(
            f"  exchange overlapped, {name}: {1e3 * step:.1f} ms, "
            f"{100 * model_flops / (step * chip.peak):.1f} % of the peak, "
            f"{shape.rows * mesh.size * shape.seconds / step:.0f} x real time"
        )
    gaps = {"tpu": "no gathers, scatters and sorts", "gpu": "without the time that launches take"}
    lines.append(f"  ({gaps[device.platform]}; all of the lattice)")
    lines += _part_lines(program, chip) + _collective_lines(program, chip, mesh.size)
    return row, lines + aot.kernel_lines(program, chip) + aot.launch_lines(compiled, counts)


def _compiled_step(
    config: Config, device: Target, shape: Shape, mesh: Mesh
) -> tuple[Config, Compiled]:
    """Returns a compiled step, with `encoder.remat` as `train.py` chooses it if it is None."""
    programs: dict[Config, Compiled] = {}

    def compiled(config: Config) -> Compiled:
        key = jax.eval_shape(lambda: jax.random.key(0))
        with backend.assume(device.platform), targets.lowering(device):
            state = jax.eval_shape(lambda key: init_state(config, key), key)
            state = sharding.sharded_shapes(state, mesh)
            batch = _batch(config, shape, shape.rows * mesh.size)
            batch = aot.placed(batch, NamedSharding(mesh, sharding.ROWS))
            key = aot.placed(key, NamedSharding(mesh, sharding.REPLICATED))
            lowered = train_step.lower(state, batch, key, config=config, mesh=mesh)
        return targets.compile(lowered, device)

    def fits(config: Config) -> bool:
        try:
            programs[config] = compiled(config)
        except targets.DoesNotFit:
            return False
        return programs[config].peak_bytes <= SHARE * device.chip.memory

    if config.model.encoder.remat is None:
        with backend.assume(device.platform):
            config = choose_remat(config, fits)
    return config, programs.get(config) or compiled(config)


def _part_lines(program: hlo.Program, chip: Chip) -> list[str]:
    seconds: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    for each in program.operations:
        backward = "transpose(" in each.scope
        once = each.cycles / chip.clock + chips.floor_seconds(each, chip)
        seconds[part_of(each)][backward] += once * each.times
    lines = ["  ms of computation, forward and backward:"]
    for name in (*PARTS, "elsewhere"):
        forward, backward = (1e3 * x for x in seconds[name])
        lines.append(f"    {name:20} {forward:8.2f} {backward:8.2f}")
    return lines


def _collective_lines(program: hlo.Program, chip: Chip, num_devices: int) -> list[str]:
    kinds: dict[tuple, list[float]] = collections.defaultdict(lambda: [0, 0, 0.0, 0.0])
    for each in program.collectives:
        seconds, exposed = exchange_seconds(each, chip, num_devices)
        row = kinds[each.kind, each.num_devices or num_devices, each.dtypes]
        for i, more in enumerate((1, each.num_bytes / 1e6, 1e3 * seconds, 1e3 * exposed)):
            row[i] += each.times * more
    lines = ["  collectives: times, MB, ms, ms not hidden"]
    for (kind, size, dtypes), (times, megabytes, *milliseconds) in sorted(kinds.items()):
        name = f"{kind} of {size}, {dtypes}"
        figures = " ".join(f"{x:8.2f}" for x in milliseconds)
        lines.append(f"    {name:32} {times:6} {megabytes:9.1f} {figures}")
    return lines


def _recognition_lines(config: Config, shape: Shape, device: Target) -> list[str]:
    """Returns lines about the encoder and the decoder, on one device."""
    model, frames = abstract_model(config.model), _num_frames(config, shape)
    encoder = encoder_aot.compile_encoder(device, model, shape.rows, shape.seconds)
    decoder = decoder_aot.compile_decoder(device, model, shape.rows, frames)
    num_turns = turns_in_block(device.platform, shape.rows, frames)
    return [
        f"the encoder of {shape.rows} x {shape.seconds:g} s on one device, compiled in "
        f"{encoder.seconds:.0f} s",
        *encoder_aot.encoder_figures(encoder, model, device, shape.rows, shape.seconds)[1],
        f"the decoder of {shape.rows} x {frames} frames, compiled in {decoder.seconds:.0f} s",
        *decoder_aot.decoder_figures(decoder, model, device, num_turns=num_turns)[1],
    ]


def _batch(config: Config, shape: Shape, num_rows: int) -> BatchArrays:
    """Returns the shapes of a batch of so many rows."""
    num_samples = round(shape.seconds * config.model.features.sample_rate)
    return BatchArrays.shapes(num_rows, num_samples, shape.tokens)


def _num_frames(config: Config, shape: Shape) -> int:
    """Returns the number of encoder frames of an utterance."""
    num_samples = round(shape.seconds * config.model.features.sample_rate)
    return subsampled_length(num_samples // config.model.features.hop_length)


def step_flops(config: Config, shape: Shape) -> tuple[int, int]:
    """Returns the operations of a step's products on one device: the model's, and all of them.

    In the model's count a gradient takes twice what the value takes, or what there is of it if not
    all parameters are trained. The loss's loops have no
    length in the jaxpr: the logits of a node cost 2 J (V + 1 + N) once forward, and three times
    backward.
    """
    key, model = jax.eval_shape(lambda: jax.random.key(0)), abstract_model(config.model)
    rows = shape.rows // config.training.accumulate
    arguments = model, _batch(config, shape, rows), key

    def value(model, batch, key):
        return loss_and_metrics(model, batch, key, config)[0]

    with backend.assume("cpu"):  # the model's own products, without those by which a TPU shifts
        once = product_flops(value, *arguments)
    both = product_flops(jax.value_and_grad(value), *arguments)
    heads = 0
    if config.model.joint is not None:
        num_logits = config.model.vocab_size + 1 + len(config.model.durations or ())
        nodes = rows * _num_frames(config, shape) * (shape.tokens + 1)
        heads = 2 * config.model.joint.width * num_logits * nodes
    parts = config.training.accumulate
    if is_partial(config.tuning):
        needed, both = (_gradient_flops(config, remat, *arguments[1:]) for remat in (False, True))
        return parts * (needed + 3 * heads), parts * (both + 4 * heads)
    return parts * 3 * (once + heads), parts * (both + 4 * heads)


def _gradient_flops(config: Config, remat: bool, batch: BatchArrays, key) -> int:
    """Returns the operations of the products for the gradient of what is trained, of one part."""
    encoder = dataclasses.replace(config.model.encoder, remat=remat)
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, encoder=encoder),
        training=dataclasses.replace(config.training, accumulate=1),
    )
    state = jax.eval_shape(lambda key: init_state(config, key), key)

    def gradients(state, batch, key):
        return gradients_and_metrics(trained_leaves(state, config), state, batch, key, config)

    return product_flops(gradients, state, batch, key)
