"""A training step, as the TPU's compiler estimates it without a TPU, data or a tokenizer."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, SingleDeviceSharding

from tdt_jax.benchmarks.cases import Shape, largest
from tdt_jax.benchmarks.loss_aot import TILE_LOOPS, num_groups
from tdt_jax.benchmarks.report import Report
from tdt_jax.benchmarks.timing import memory_of, timed
from tdt_jax.config import Config
from tdt_jax.decoding.greedy import greedy_decode
from tdt_jax.losses.nodes import CHUNK
from tdt_jax.models.subsampling import subsampled_length
from tdt_jax.models.transducer import abstract_model, encode
from tdt_jax.profiling import hlo
from tdt_jax.profiling.flops import product_flops
from tdt_jax.profiling.step_parts import PARTS, part_of
from tdt_jax.profiling.tpu import Chip, chip_of, cost_of, devices, exchange_seconds, text_of
from tdt_jax.runtime import backend, sharding
from tdt_jax.runtime.pytree import num_parameters
from tdt_jax.training.step import BatchArrays, init_state, loss_and_metrics, train_step


def training_report(config: Config, topology: str, shape: Shape | None = None) -> Report:
    """Returns the estimates for `train_step`, `encode` and `greedy_decode`.

    Args:
      config: its `model.vocab_size` is taken as it is.
      topology: such as v5e:16x16.
      shape: of each device's batch; None: the last bucket, split among the devices.

    Raises:
      ValueError: if the topology is not known, libtpu is missing, the batch cannot be split, or the
        program does not fit into the memory.
    """
    chip, chips = chip_of(topology), devices(topology)
    shape = shape or largest(config.data.buckets, len(chips))
    chunk = config.loss.chunk or CHUNK
    config = dataclasses.replace(config, loss=dataclasses.replace(config.loss, chunk=chunk))
    with backend.assume("tpu"):
        row, lines = _step(config, topology, shape, chips, chip, chunk)
        if config.model.predictor is not None:
            lines += _decoder_lines(config, shape, chips[0], chip)
    return Report([row], "\n".join(lines))


def _step(
    config: Config, topology: str, shape: Shape, chips: list, chip: Chip, chunk: int
) -> tuple[dict, list[str]]:
    """Returns the figures of a step, and their lines of the table."""
    mesh = sharding.make_mesh(chips, fsdp=config.training.fsdp)
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes = jax.eval_shape(lambda key: init_state(config, key), key)
    state = sharding.sharded_shapes(shapes, mesh)
    rows = NamedSharding(mesh, sharding.ROWS)
    batch = _placed(_batch(config, shape, shape.rows * mesh.size), rows)
    arguments = state, batch, _placed(key, NamedSharding(mesh, sharding.REPLICATED))
    compiled, seconds = _compile(train_step.lower(*arguments, config=config, mesh=mesh))

    part = shape.rows // config.training.accumulate
    groups = num_groups(part, _num_frames(config, shape), shape.tokens, chunk)
    program = hlo.read(text_of(compiled), dict.fromkeys(TILE_LOOPS, groups))
    cost = cost_of(program, chip, mesh.size)
    model_flops, all_flops = step_flops(config, shape)
    memory = memory_of(compiled)
    parameters = num_parameters(shapes.model)
    row = {
        "topology": topology,
        "parameters": parameters,
        "compile_seconds": seconds,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "peak_bytes": memory.peak_memory_in_bytes,
        "model_flops": model_flops,
        "flops": all_flops,
        "compute_seconds": cost.compute,
        "exchange_seconds": cost.exchange,
        "exposed_seconds": cost.exposed,
    }
    lines = [
        f"{topology}: {mesh.size} devices, parameters split among {config.training.fsdp}; "
        f"{parameters / 1e6:.0f} M parameters, {config.model.dtype}",
        f"a step of {shape.rows} x {shape.seconds:g} s with {shape.tokens} tokens on each, "
        f"compiled in {seconds:.0f} s",
        f"  memory, GB: {memory.argument_size_in_bytes / 1e9:.2f} of arguments, "
        f"{memory.temp_size_in_bytes / 1e9:.2f} of temporaries, "
        f"{memory.peak_memory_in_bytes / 1e9:.2f} at the peak, of {chip.memory / 1e9:.0f}",
        f"  products, TFLOP: {model_flops / 1e12:.2f} of the model, {all_flops / 1e12:.2f} with "
        "what is computed again",
        f"  estimated, ms: {1e3 * cost.compute:.1f} of computation and {1e3 * cost.exchange:.1f} "
        f"of exchange, of which {1e3 * cost.exposed:.1f} not hidden by computation",
    ]
    for name, more in (
        ("nothing", cost.exchange),
        ("as scheduled", cost.exposed),
        ("all", max(0.0, cost.exchange - cost.compute)),
    ):
        step = cost.compute + more
        lines.append(
            f"  exchange overlapped, {name}: {1e3 * step:.1f} ms, "
            f"{100 * model_flops / (step * chip.peak):.1f} % of the peak, "
            f"{shape.rows * mesh.size * shape.seconds / step:.0f} x real time"
        )
    lines.append(
        "  (no gathers, scatters and sorts, which it does not estimate; all of the lattice)"
    )
    lines += _part_lines(program, chip) + _collective_lines(program, chip, mesh.size)
    return row, lines


def _part_lines(program: hlo.Program, chip: Chip) -> list[str]:
    cycles: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    for each in program.operations:
        backward = "transpose(" in each.scope
        cycles[part_of(each)][backward] += each.cycles * each.times
    lines = ["  ms of computation, forward and backward:"]
    for name in (*PARTS, "elsewhere"):
        forward, backward = (1e3 * x / chip.clock for x in cycles[name])
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


def _decoder_lines(config: Config, shape: Shape, device, chip: Chip) -> list[str]:
    """Returns lines about the encoder and an iteration of the decoder's loop, on one device."""
    one = SingleDeviceSharding(device)
    model = _placed(abstract_model(config.model), one)
    batch = _batch(config, shape, shape.rows)
    size = batch.samples.shape[1] // config.model.features.hop_length
    features = jax.ShapeDtypeStruct((shape.rows, size, config.model.features.num_mels), jnp.float32)
    lengths = jax.ShapeDtypeStruct((shape.rows,), jnp.int32)
    compiled, seconds = _compile(encode.lower(model, *_placed((features, lengths), one)))
    program = hlo.read(text_of(compiled))
    lines = [
        f"the encoder of {shape.rows} x {shape.seconds:g} s on one device, compiled in "
        f"{seconds:.0f} s: {1e3 * program.cycles / chip.clock:.1f} ms, "
        f"{memory_of(compiled).peak_memory_in_bytes / 1e9:.2f} GB at the peak"
    ]
    frames = jax.ShapeDtypeStruct(
        (shape.rows, _num_frames(config, shape), config.model.encoder.width), config.model.dtype
    )
    options = dict(max_symbols=config.model.max_symbols)
    lowered = greedy_decode.lower(model, *_placed((frames, lengths), one), **options)
    compiled, seconds = _compile(lowered)
    weights = jax.tree.leaves((model.predictor.layers, model.joint))
    num_bytes = sum(x.size * x.dtype.itemsize for x in weights)
    once = hlo.read(text_of(compiled), {"while": 1}).cycles / chip.clock
    before = hlo.read(text_of(compiled), {"while": 0}).cycles / chip.clock
    lines.append(
        f"the decoder of {shape.rows} x {frames.shape[1]} frames, compiled in {seconds:.0f} s: "
        f"{1e3 * before:.2f} ms and {1e6 * (once - before):.1f} us a step, of which reading the "
        f"weights takes {1e6 * num_bytes / chip.bandwidth:.1f} us; "
        f"{memory_of(compiled).peak_memory_in_bytes / 1e9:.2f} GB at the peak"
    )
    return lines


def _batch(config: Config, shape: Shape, num_rows: int) -> BatchArrays:
    """Returns the shapes of a batch of so many rows."""
    num_samples = round(shape.seconds * config.model.features.sample_rate)
    return jax.eval_shape(
        lambda: BatchArrays(
            samples=jnp.zeros((num_rows, num_samples)),
            num_samples=jnp.zeros(num_rows, jnp.int32),
            labels=jnp.zeros((num_rows, shape.tokens), jnp.int32),
            num_labels=jnp.zeros(num_rows, jnp.int32),
        )
    )


def _num_frames(config: Config, shape: Shape) -> int:
    """Returns the number of encoder frames of an utterance."""
    num_samples = round(shape.seconds * config.model.features.sample_rate)
    return subsampled_length(num_samples // config.model.features.hop_length)


def step_flops(config: Config, shape: Shape) -> tuple[int, int]:
    """Returns the operations of a step's products on one device: the model's, and all of them.

    In the model's count a gradient takes twice what the value takes. The loss's loops have no
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
    return parts * 3 * (once + heads), parts * (both + 4 * heads)


def _placed(tree, sharding):
    """Returns the shapes of a tree's leaves with a sharding."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def _compile(lowered):
    """Returns the compiled program and the seconds that compilation took."""
    try:
        seconds, compiled = timed(lowered.compile)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise ValueError(f"it does not fit: {str(error).partition(chr(10))[0]}") from None
    return compiled, seconds
