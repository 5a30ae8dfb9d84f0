"""The stages of `tdt-jax benchmark device`: is a device right, and how fast is it?

    python -m tdt_jax.benchmarks.device_stages FOLDER "decode, TDT and RNN-T" [--tiny]

runs one stage in this process and appends each figure to FOLDER/rows.jsonl as soon as it is
measured. Weights and inputs are random and always the same. A stage's XLA_FLAGS and TDT_JAX_KERNELS
are set before the process starts.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax import presets
from tdt_jax.benchmarks.cases import (
    DURATIONS,
    MODELS,
    SIGMA,
    Case,
    Shape,
    loss_inputs,
    make_joint,
    random_features,
    random_model,
)
from tdt_jax.benchmarks.encoder import encoder_flops
from tdt_jax.benchmarks.loss import measure_tiled
from tdt_jax.benchmarks.random_decoder import (
    LABELS_PER_SECOND,
    decoder_only,
    find_blank_bias,
    make_frames,
    make_model,
)
from tdt_jax.benchmarks.timing import measure, median_seconds
from tdt_jax.benchmarks.train_step import noise
from tdt_jax.benchmarks.train_step_aot import step_flops
from tdt_jax.config import Config, ModelConfig
from tdt_jax.decoding.greedy import greedy_decode
from tdt_jax.inference.recognition import decode_samples
from tdt_jax.losses.scores import Scores, log_likelihoods_and_posteriors, make_spec
from tdt_jax.losses.tiled import transducer_loss
from tdt_jax.models.features import log_mel
from tdt_jax.models.transducer import abstract_model, encode
from tdt_jax.runtime import backend, process
from tdt_jax.training.step import init_state, train_step

ROWS = "rows.jsonl"
REPEATS = 5
KERNELS = "TDT_JAX_KERNELS"
GRAPHS = {"XLA_FLAGS": "--xla_gpu_enable_command_buffer=+WHILE"}

Note = Callable[..., None]  # writes a row: the case, and figures by name


class Stage(NamedTuple):
    """A process with a time limit, its most wanted figures first."""

    measure: Callable[[Note, bool], None]
    seconds: float  # its limit
    variables: Mapping[str, str] = MappingProxyType({})  # added to those of the environment
    backends: tuple[str, ...] = ("cpu", "gpu", "tpu")


def environment(note: Note, tiny: bool) -> None:
    """Notes the device, the versions, and the rates that bound everything else."""
    device, size = jax.devices()[0], 256 if tiny else 8192
    note(
        "versions",
        tdt_jax=version("tdt-jax"),
        jax=version("jax"),
        python=platform.python_version(),
        backend=jax.default_backend(),
        device=device.device_kind,
        devices=jax.device_count(),
    )
    for dtype, precision in (("bfloat16", None), ("float32", None), ("float32", "highest")):
        name = f"product of {size} x {size}, {dtype}" + ", highest" * (precision is not None)
        note(name, tflops=1e-12 * _product_rate(size, dtype, precision))
    add = jax.jit(lambda x: x + 1)
    seconds, x = _timed(add, jnp.ones(size * size * 8, jnp.float32))
    note("copying", gigabytes_per_second=2e-9 * x.nbytes / seconds)
    count = jax.jit(lambda end: jax.lax.while_loop(lambda i: i < end, lambda i: i + 1, 0))
    note("loop with an almost empty body", us_per_turn=1e6 * _timed(count, 1000)[0] / 1000)


def parity(note: Note, tiny: bool) -> None:
    """Notes how far the device's results are from the CPU's."""
    for name in ("0.6b-v2", "rnnt-0.6b"):
        config = _decoder_config(name, "float32", tiny)
        *arguments, num_frames = _decoder_inputs(config, 8, _frames(tiny), bias=10.0)
        run = functools.partial(greedy_decode, max_symbols=config.max_symbols)
        found, expected = _on_both(run, *arguments, num_frames)
        fields = zip(found[:4], expected[:4], strict=True)  # labels, numbers, times, durations
        alike = [np.array_equal(*(x[row] for x in pair)) for pair in fields for row in range(8)]
        note(
            f"decoder, {name}",
            alike=int(np.reshape(alike, (4, 8)).all(axis=0).sum()),
            utterances=8,
            labels=int(expected.num_labels.sum()),
            error_of_scores=_error(found.scores, expected.scores),
        )
    case = Case("", 4, 20, 8, 64, 32) if tiny else Case("", 4, 200, 60, 1024)
    inputs = loss_inputs(case)
    joint = make_joint(case, "float32", inputs)
    ends = (np.full(4, size, np.int32) - np.arange(4) for size in (case.frames, case.labels))
    options: dict[str, Any] = dict(durations=DURATIONS, sigma=SIGMA, neglect=0.0)

    def total(joint, frames, states, *lengths):
        losses = transducer_loss(joint, frames, states, *lengths, **options)
        return losses.sum(), losses

    step = jax.grad(total, argnums=(0, 1, 2), has_aux=True)
    arguments = joint, *(inputs[name] for name in ("frames", "states", "labels")), *ends
    found, expected = _on_both(step, *arguments)
    note("loss", error=_error(found[1], expected[1]))
    note("gradients of the loss", error=_error(found[0], expected[0]))
    _encoder_parity(note, tiny)


def _encoder_parity(note: Note, tiny: bool) -> None:
    wide = dataclasses.replace(presets.TINY.encoder, width=128, num_heads=2)  # as the kernel needs
    config = presets.MICRO if tiny else dataclasses.replace(presets.TINY, encoder=wide)
    num_samples = np.array([480000, 400000, 16000, 160], np.int32) // (30 if tiny else 1)
    shape = len(num_samples), int(num_samples.max())
    samples = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    mel = functools.partial(log_mel, config=config.features)
    found, features = _on_both(mel, samples, num_samples)
    note("features", error=_error(found, features))
    model = random_model(config, "float32")

    def weigh(model, *features):
        frames = encode(model, *features)[0].astype(jnp.float32)
        weights = jnp.cos(jnp.arange(frames.size, dtype=jnp.float32)).reshape(frames.shape)
        return jnp.sum(frames * weights), frames

    step = jax.grad(weigh, has_aux=True)
    expected = _on(jax.devices("cpu")[0], step, model, *features)
    for dtype, precision in (("float32", "highest"), ("float32", "default"), ("bfloat16", None)):
        chosen = dataclasses.replace(config.encoder, precision=precision or "default")
        other = dataclasses.replace(config, encoder=chosen, dtype=dtype)
        other = jax.tree.structure(abstract_model(other))
        other = jax.tree.unflatten(other, jax.tree.leaves(model))
        found = _on(jax.devices()[0], step, other, *features)
        name = dtype if precision is None else f"{dtype}, {precision}"
        note(f"encoder, {name}", error=_error(found[1], expected[1]))
        note(f"gradients of the encoder, {name}", error=_error(found[0], expected[0]))


def decoder(note: Note, tiny: bool) -> None:
    """Notes a TDT beside an RNN-T of the same size and vocabulary.

    The RNN-T is decoded frame by frame, as in the paper, and in windows of four frames.
    """
    kinds = ("TDT", "0.6b-v2", 1), ("RNN-T", "rnnt-0.6b", 1), ("RNN-T in windows", "rnnt-0.6b", 4)
    biases: dict[str, float] = {}
    for batch in (2,) if tiny else (1, 32, 128, 8):
        first: dict[str, float] = {}
        for kind, name, window in kinds:
            config = _decoder_config(name, "bfloat16", tiny)
            num_frames = _frames(tiny)
            if name not in biases:
                biases[name] = find_blank_bias(config, num_frames)
            arguments = jax.device_put(_decoder_inputs(config, batch, num_frames, biases[name]))
            run = functools.partial(greedy_decode, max_symbols=config.max_symbols, window=window)
            seconds, found = _timed(run, *arguments)
            audio, steps = batch * num_frames * config.seconds_per_frame, int(found.num_steps.sum())
            figures = {"ms": 1e3 * seconds, "steps_per_second": steps / audio}
            if window == 1:
                figures["us_per_turn"] = 1e6 * seconds / int(found.num_steps.max())
            labels = int(found.num_labels.sum()) / audio
            note(
                f"{kind}, batch {batch}",
                **figures,
                labels_per_second=labels,
                x_real_time=audio / seconds,
            )
            if not first:
                first = figures
            else:
                ratios = {key: figures[key] / first[key] for key in ("steps_per_second", "ms")}
                note(f"{kind} / TDT, batch {batch}", **ratios)


def loss(note: Note, tiny: bool) -> None:
    """Notes the recursion over the lattice, and the loss with its gradients."""
    small, large = Case("V = 1024", 64, 250, 100, 1024), Case("V = 8192", 16, 250, 100, 8192)
    for case in (Case("tiny", 2, 20, 8, 64, 32),) if tiny else (small, large):
        nodes = case.batch, case.frames, case.labels + 1
        scores = Scores(
            jnp.full(nodes, -0.5),
            jnp.full(nodes, -1.0),
            jnp.full((*nodes, len(DURATIONS)), -1.6),
        )
        ends = (jnp.full(case.batch, x, jnp.int32) for x in (case.frames, case.labels))
        spec = make_spec(DURATIONS, sigma=SIGMA)
        recursion = jax.jit(lambda *arguments: log_likelihoods_and_posteriors(*arguments))
        seconds, _ = _timed(recursion, scores, *ends, spec)
        each = 1e6 * seconds / (case.frames + case.labels + 1)
        note(f"recursion, {_shape(case)}", ms=1e3 * seconds, us_per_diagonal=each)
        _note_loss(note, case, "bfloat16")
    if not tiny:
        _note_loss(note, small, "float32")
        _note_loss(note, large, "float32")


def _note_loss(note: Note, case: Case, dtype: str) -> None:
    cost, _ = measure_tiled(case, dtype=dtype, repeats=REPEATS)
    note(
        f"loss and gradients, {_shape(case)}, {dtype}",
        ms=1e3 * cost.seconds,
        tflops=1e-12 * case.flops / cost.seconds,
        compile_seconds=cost.compile_seconds,
    )


def _shape(case: Case) -> str:
    return f"{case.name}, B, T, U = {case.batch}, {case.frames}, {case.labels}"


def encoder(note: Note, tiny: bool) -> None:
    """Notes the encoder of utterances of 30 s: one first, which compiles in the least time."""
    seconds = 1.0 if tiny else 30.0
    config = presets.MICRO if tiny else MODELS["0.6b-v2"]
    weights = jax.device_put(random_model(config, "float32"))  # drawn once: that takes seconds
    for batch, dtype in ((1, "bfloat16"),) if tiny else (
        (1, "bfloat16"), (32, "bfloat16"), (128, "bfloat16"), (32, "float32")
    ):  # fmt: skip
        model = jax.tree.structure(abstract_model(dataclasses.replace(config, dtype=dtype)))
        model = model.unflatten(x.astype(dtype) for x in jax.tree.leaves(weights))
        features = jax.device_put(random_features(config, seconds, batch))
        cost, _ = measure(encode, model, *features, repeats=REPEATS)
        note(
            f"batch {batch}, {dtype}",
            ms=1e3 * cost.seconds,
            tflops=1e-12 * encoder_flops(config, seconds, batch) / cost.seconds,
            x_real_time=batch * seconds / cost.seconds,
            compile_seconds=cost.compile_seconds,
        )


def whole(note: Note, tiny: bool) -> None:
    """Notes the whole way from samples in the host's memory to labels."""
    seconds = 1.0 if tiny else 30.0
    config = dataclasses.replace(presets.MICRO if tiny else MODELS["0.6b-v2"], dtype="bfloat16")
    model = random_model(config, "bfloat16")
    decoder = jax.tree.map(lambda x: jnp.asarray(x, "bfloat16"), make_model(config, 0.0))
    model.predictor, model.joint = decoder.predictor, decoder.joint
    for batch in (1,) if tiny else (32, 1, 128):
        shape = batch, round(seconds * config.features.sample_rate)
        samples = np.float32(0.1) * np.random.default_rng(0).standard_normal(shape, np.float32)
        lengths = np.full(batch, shape[1], np.int32)
        _bias_to_speech(model, samples[:4], lengths[:4], seconds)
        run = functools.partial(decode_samples, model)
        taken, found = _timed(run, samples, lengths)
        note(
            f"batch {batch}",
            ms=1e3 * taken,
            labels_per_second=int(found.num_labels.sum()) / (batch * seconds),
            x_real_time=batch * seconds / taken,
        )


def _bias_to_speech(model, samples, lengths, seconds: float) -> None:
    """Sets blank's bias so that at least as many labels are emitted as in speech, by bisection."""

    def set_bias(value):
        bias = model.joint.token_head.bias
        bias[...] = bias[...].at[-1].set(value)

    low, high = -20.0, 60.0
    for _ in range(10):
        middle = (low + high) / 2
        set_bias(middle)
        count = int(decode_samples(model, samples, lengths).num_labels.sum())
        is_high = count >= LABELS_PER_SECOND * len(samples) * seconds
        low, high = (middle, high) if is_high else (low, middle)
    set_bias(low)


def train(note: Note, tiny: bool) -> None:
    """Notes a training step on noise."""
    cases = (
        ("115 M", presets.LARGE, Shape(30.0, 160, 32)),
        ("0.6 B", presets.XLARGE, Shape(30.0, 160, 16)),
    )
    for name, model, shape in (("tiny", presets.MICRO, Shape(1.0, 4, 2)),) if tiny else cases:
        config = Config(model=dataclasses.replace(model, dtype="bfloat16"))
        key = jax.random.key(0)
        state = jax.jit(init_state, static_argnums=0)(config, key)
        batch = jax.device_put(noise(config, shape, shape.rows))

        start = time.perf_counter()
        compiled = train_step.lower(state, batch, key, config=config).compile()
        compile_seconds = time.perf_counter() - start

        def step(compiled=compiled, batch=batch, key=key):
            nonlocal state
            state, metrics = compiled(state, batch, key)
            return float(metrics.loss)  # which waits for the step

        seconds, last = median_seconds(step, 2 if tiny else REPEATS)
        rate = step_flops(config, shape)[0] / seconds
        size = 256 if tiny else 8192
        note(
            f"{name}, {shape.rows} x {shape.seconds:g} s, {shape.tokens} tokens",
            ms=1e3 * seconds,
            tflops=1e-12 * rate,
            share_of_products=rate / _product_rate(size, "bfloat16", None),
            x_real_time=shape.rows * shape.seconds / seconds,
            loss=last,
            compile_seconds=compile_seconds,
        )


def _decoder_config(name: str, dtype: str, tiny: bool) -> ModelConfig:
    full = MODELS[name]
    if tiny:
        full = dataclasses.replace(presets.MICRO, durations=full.durations)
    return decoder_only(dataclasses.replace(full, dtype=dtype))


def _decoder_inputs(config: ModelConfig, batch: int, num_frames: int, bias: float) -> tuple:
    """Returns random weights, frames [B, T, D] in the model's dtype, and their lengths [B]."""
    dtype = jnp.dtype(config.dtype)
    model = jax.tree.map(lambda x: x.astype(dtype), make_model(config, bias))
    frames = make_frames(config, batch, num_frames).astype(dtype)
    return model, frames, np.full(batch, num_frames, np.int32)


def _frames(tiny: bool) -> int:
    return 40 if tiny else 375


def _on_both(function: Callable, *arguments) -> tuple[Any, Any]:
    """Returns the results of the device and of the CPU."""
    devices = jax.devices()[0], jax.devices("cpu")[0]
    found, expected = (_on(device, function, *arguments) for device in devices)
    return found, expected


def _on(device: Any, function: Callable, *arguments) -> Any:
    is_cpu = device.platform == "cpu"
    assumed = backend.assume("cpu") if is_cpu else contextlib.nullcontext()
    with assumed, jax.default_device(device):
        return jax.device_get(jax.jit(function)(*jax.device_put(arguments, device)))


def _error(found: Any, expected: Any) -> float:
    """Returns the largest difference of arrays, relative to the largest number of each.

    Or to 1 % of the largest of all, where that is more: some gradients are zero but for rounding,
    such as that of the keys' bias.
    """
    ours, theirs = (
        [np.asarray(x, np.float64) for x in jax.tree.leaves(each) if np.size(x)]
        for each in (found, expected)
    )
    largest = [np.abs(x).max() for x in theirs]
    least = max(0.01 * max(largest), 1e-30)
    pairs = zip(ours, theirs, largest, strict=True)
    return max(float(np.abs(a - b).max() / max(scale, least)) for a, b, scale in pairs)


def _product_rate(size: int, dtype: str, precision: str | None) -> float:
    """Returns the flop/s of a product of two square matrices of random numbers."""
    x = jax.random.normal(jax.random.key(0), (size, size), dtype)
    run = jax.jit(functools.partial(jnp.matmul, precision=precision))
    return 2 * size**3 / _timed(run, x, x)[0]


def _timed(run: Callable, *arguments) -> tuple[float, Any]:
    return median_seconds(lambda: jax.block_until_ready(run(*arguments)), REPEATS)


# Products by cuBLAS: to find the tiles of XLA's own by trial can take longer than a stage may.
PRODUCTS = {"XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false"}
ON, OFF = {KERNELS: "on", **PRODUCTS}, {KERNELS: "off", **PRODUCTS}
DEVICES = ("gpu", "tpu")
STAGES = {
    "environment": Stage(environment, 60),
    "parity with the CPU": Stage(parity, 120, OFF),
    "decoder": Stage(decoder, 110),
    "decoder, loop as a CUDA graph": Stage(decoder, 80, GRAPHS, ("gpu",)),
    "parity with the CPU, kernels": Stage(parity, 90, ON, DEVICES),
    "loss": Stage(loss, 75, OFF),
    "loss, kernels": Stage(loss, 60, ON, DEVICES),
    "encoder": Stage(encoder, 75, OFF),
    "encoder, kernels": Stage(encoder, 60, ON, DEVICES),
    "samples to labels": Stage(whole, 80, PRODUCTS),
    "training step": Stage(train, 120, OFF),
    "training step, kernels": Stage(train, 120, ON, DEVICES),
}


def note_into(folder: Path, stage: str, case: str, **figures) -> None:
    """Appends a row to those in the folder, and prints it."""
    row = {"stage": stage, "case": case, **figures}
    with open(folder / ROWS, "a") as file:
        file.write(json.dumps(row) + "\n")
    values = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())
    print(f"{stage}: {case}: " + ", ".join(values), flush=True)


def main() -> None:
    """Runs the stage that the arguments name."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    process.set_up()

    def note(case: str, **figures) -> None:
        memory = jax.devices()[0].memory_stats() or {}
        if peak := memory.get("peak_bytes_in_use"):
            figures["peak_gigabytes"] = 1e-9 * peak
        note_into(options.folder, options.stage, case, **figures)

    STAGES[options.stage].measure(note, options.tiny)


if __name__ == "__main__":
    main()
