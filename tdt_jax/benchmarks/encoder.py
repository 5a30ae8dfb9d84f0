"""The encoder's speed and memory, beside transformers'.

Weights are random: published ones need not be at hand. Every measurement runs in a process of its
own; figures of one call compare with each other, and with nothing else.
"""

import dataclasses
import time
from typing import NamedTuple

import numpy as np

from tdt_jax.benchmarks.cases import MODELS
from tdt_jax.benchmarks.timing import (
    in_subprocess,
    installed,
    median_seconds,
    peak_since,
    reset_peak,
)
from tdt_jax.config import ModelConfig


class Speed(NamedTuple):
    """An encoder that was run."""

    seconds: float  # the median
    compile_seconds: float
    flops: float  # of its products, counted from the sizes
    temporary_bytes: int | None  # of the compiled program, by XLA's own account
    peak_bytes: int | None  # by which the process grew at its peak
    device: str


def flops(config: ModelConfig, num_features: int) -> float:
    """Floating point operations of the encoder's products on one utterance."""
    encoder, bins, rows = config.encoder, config.features.num_mels, num_features
    width, channels, total = encoder.width, encoder.subsampling_channels, 0.0
    for stage in range(3):
        rows, bins = -(-rows // 2), -(-bins // 2)
        total += 2 * rows * bins * channels * (9 + (channels if stage else 0))
    total += 2 * rows * bins * channels * width
    context = encoder.attention_context
    seen = rows if context is None else min(rows, 3 * max(context))
    positions = 2 * rows if context is None else sum(context) + 1
    per_frame = (4 * encoder.feed_forward_factor + 4 + 3) * width**2  # products with matrices
    per_frame += width * encoder.kernel_size + width * (2 * seen + positions)
    return total + 2 * encoder.num_layers * (rows * per_frame + positions * width**2)


def measure(config: ModelConfig, *, seconds: float, batch: int, dtype: str, repeats: int) -> Speed:
    """`tdt_jax.encode` on random features of some seconds."""
    return in_subprocess(_measure, config, seconds, batch, dtype, repeats)


def _measure(config: ModelConfig, seconds: float, batch: int, dtype: str, repeats: int) -> Speed:
    import jax

    from tdt_jax.models.transducer import encode

    config = dataclasses.replace(config, dtype=dtype)
    model = _random_model(config, dtype)
    features, lengths = _features(config, seconds, batch)
    start = time.perf_counter()
    compiled = encode.lower(model, features, lengths).compile()
    compile_seconds = time.perf_counter() - start
    before = reset_peak()
    taken, _ = median_seconds(
        lambda: jax.block_until_ready(compiled(model, features, lengths)), repeats
    )
    peak, device = peak_since(before), jax.devices()[0]
    if device.platform != "cpu":
        peak = (device.memory_stats() or {}).get("peak_bytes_in_use")  # parameters and all
    temporary = compiled.memory_analysis().temp_size_in_bytes
    total = batch * flops(config, features.shape[1])
    return Speed(taken, compile_seconds, total, temporary, peak, device.device_kind)


def _random_model(config: ModelConfig, dtype: str):
    import jax
    import jax.numpy as jnp

    from tdt_jax.models.transducer import abstract_model

    def fill(path, leaf):
        size = leaf.shape[-2] if len(leaf.shape) > 1 else 1
        key = jax.random.key(hash(jax.tree_util.keystr(path)) % (1 << 31), impl="rbg")
        return jax.random.normal(key, leaf.shape, jnp.dtype(dtype)) / np.float32(size**0.5).astype(
            jnp.dtype(dtype)
        )

    return jax.tree.map_with_path(fill, abstract_model(config))


def _features(config: ModelConfig, seconds: float, batch: int):
    num_features = round(seconds * 100)
    shape = batch, num_features, config.features.num_mels
    features = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return features, np.full((batch,), num_features, np.int32)


def matmul_rate(config: ModelConfig, dtype: str) -> float:
    """The best flop/s of the feed-forward's product."""
    return in_subprocess(_matmul_rate, config.encoder.width, dtype)


def _matmul_rate(width: int, dtype: str) -> float:
    import jax
    import jax.numpy as jnp

    best = 0.0
    for rows in (512, 4096):
        x, kernel = jnp.ones((rows, width), dtype), jnp.ones((width, 4 * width), dtype)
        function = jax.jit(jnp.matmul)
        seconds, _ = median_seconds(
            lambda f=function, x=x, k=kernel: jax.block_until_ready(f(x, k)), 10
        )
        best = max(best, 8 * rows * width**2 / seconds)
    return best


def describe(name: str, config: ModelConfig, seconds: float, batch: int, rate: float,
             speeds: dict[str, Speed]) -> str:  # fmt: skip
    """A table to read."""
    first = next(iter(speeds.values()))
    context = config.encoder.attention_context
    lines = [
        f"{name}: encoder of {batch} x {seconds:g} s, attention "
        f"{'full' if context is None else context}; {first.flops / 1e9:.0f} GFLOP; products alone "
        f"{rate / 1e9:.0f} GFLOP/s; on {first.device}"
    ]
    for method, speed in speeds.items():
        memory = [
            f"{label} {value / 1e6:.0f} MB"
            for label, value in (("temporaries", speed.temporary_bytes), ("peak", speed.peak_bytes))
            if value is not None
        ]
        lines.append(
            f"  {method:14s} {speed.seconds:8.3f} s  {batch * seconds / speed.seconds:7.1f} x real "
            f"time  {first.flops / speed.seconds / rate:5.2f} of the products' rate  "
            + "  ".join(memory)
        )
        if speed is not first:
            lines[-1] += f"  {first.seconds / speed.seconds:.2f} = ours / theirs"
    return "\n".join(lines)


# Beside transformers


def require_peers() -> None:
    """Raise ValueError unless torch and transformers are installed."""
    if missing := [x for x in ("torch", "transformers") if not installed(x)]:
        raise ValueError(f"--peers needs {' and '.join(missing)} (pip install) beside tdt_jax")


def measure_peer(config: ModelConfig, *, seconds: float, batch: int, repeats: int) -> Speed:
    """transformers' encoder in float32 on the CPU, on the same features."""
    return in_subprocess(_measure_peer, config, seconds, batch, repeats)


def _measure_peer(config: ModelConfig, seconds: float, batch: int, repeats: int) -> Speed:
    import torch

    encoder = make_peer(config).encoder
    features, lengths = _features(config, seconds, batch)
    x, mask = torch.from_numpy(features), torch.ones(features.shape[:2], dtype=torch.bool)
    before = reset_peak()
    with torch.no_grad():
        taken, _ = median_seconds(lambda: encoder(x, mask), repeats)
    device = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    total = batch * flops(config, int(lengths[0]))
    return Speed(taken, 0.0, total, None, peak_since(before), device)


def make_peer(config: ModelConfig):
    """A transformers model of the same sizes, whose weights make every part matter."""
    import torch
    import transformers

    from tdt_jax.checkpoints.parakeet.hugging_face_config import model_config

    fields = model_config(dataclasses.replace(config, ctc=False))
    kind = fields["architectures"][0]
    cls = getattr(transformers, kind.replace("For", "") + "Config")
    fields.pop("dtype")
    peer = getattr(transformers, kind)(cls(**fields)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in peer.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2, generator=generator)
            elif "norm" in name and name.endswith("weight"):
                tensor.uniform_(0.8, 1.2, generator=generator)
            elif tensor.ndim > 1:
                tensor.normal_(0, np.prod(tensor.shape[1:]) ** -0.5, generator=generator)
            else:
                tensor.normal_(0, 0.1, generator=generator)
        peer.decoder.embedding.weight[config.blank] = 0
    return peer


def encoder_report(
    names: list[str],
    *,
    seconds: float,
    batch: int,
    dtype: str,
    repeats: int,
    attention_context: tuple[int, int] | None,
    peers: bool,
) -> list[str]:
    """A table for each size.

    Raises:
      ValueError: for a size that there is not, and if peers are not installed.
    """
    if unknown := [name for name in names if name not in MODELS]:
        raise ValueError(f"no case {unknown[0]!r}; there are {', '.join(MODELS)}")
    if peers:
        require_peers()
    reports = []
    for name in names:
        config = MODELS[name]
        encoder = dataclasses.replace(config.encoder, attention_context=attention_context)
        config = dataclasses.replace(config, encoder=encoder)
        options = dict(seconds=seconds, batch=batch, repeats=repeats)
        speeds = {"tdt_jax": measure(config, dtype=dtype, **options)}
        if peers:
            full = dataclasses.replace(encoder, attention_context=None)
            speeds["transformers"] = measure_peer(
                dataclasses.replace(config, encoder=full), **options
            )
        rate = matmul_rate(config, dtype)
        reports.append(describe(name, config, seconds, batch, rate, speeds))
    return reports
