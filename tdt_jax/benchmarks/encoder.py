"""The encoder's speed and memory, beside those of transformers'.

Weights are random: published ones need not be at hand. Every measurement runs in a process of its
own; compare the figures of one call with each other, and with nothing else.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp

from tdt_jax.benchmarks.cases import MODELS, choose, num_features, random_features, random_model
from tdt_jax.benchmarks.peers import measure_peer_encoder, require_peers
from tdt_jax.benchmarks.report import Report
from tdt_jax.benchmarks.timing import Measurement, feed_forward_rate, in_subprocess, measure
from tdt_jax.config import ModelConfig
from tdt_jax.models.transducer import abstract_model, encode
from tdt_jax.profiling.flops import product_flops
from tdt_jax.runtime import backend


def encoder_reports(
    names: Sequence[str],
    *,
    seconds: float,
    batch: int,
    dtype: str,
    repeats: int,
    attention_context: tuple[int, int] | None,
    peers: bool,
) -> Iterator[Report]:
    """Yields a report for each size of `cases.MODELS`, with a row for each method.

    Args:
      names: of the sizes.
      seconds: length of the audio of an utterance.
      batch: number of utterances.
      dtype: of parameters and computation; transformers' are float32.
      repeats: runs of which the median counts, after one that does not.
      attention_context: of this package's encoder; transformers' has full attention.
      peers: whether to measure transformers' encoder too.

    Raises:
      ValueError: for an unknown size, and if transformers is not installed but asked for.
    """
    configs = choose(names, MODELS)
    if peers:
        require_peers()
    for name, full in configs.items():
        encoder = dataclasses.replace(full.encoder, attention_context=attention_context)
        config = dataclasses.replace(full, encoder=encoder)
        sizes = seconds, batch
        methods = {"tdt_jax": in_subprocess(_measure, config, *sizes, dtype, repeats)}
        if peers:
            methods["transformers"] = in_subprocess(
                measure_peer_encoder, full, *sizes, repeats=repeats
            )
        rate = in_subprocess(feed_forward_rate, config.encoder.width, dtype)
        yield make_report(name, config, *sizes, rate, methods)


def _measure(
    config: ModelConfig, seconds: float, batch: int, dtype: str, repeats: int
) -> Measurement:
    """Returns the cost of `tdt_jax.encode` on random features."""
    model = random_model(config, dtype)
    return measure(encode, model, *random_features(config, seconds, batch), repeats=repeats)[0]


def encoder_flops(config: ModelConfig, seconds: float, batch: int) -> int:
    """Returns the operations of the encoder's matrix products and convolutions."""
    shape = batch, num_features(seconds), config.features.num_mels
    features = jax.ShapeDtypeStruct(shape, jnp.float32)
    lengths = jax.ShapeDtypeStruct((batch,), jnp.int32)
    with backend.assume("cpu"):  # the model's own products, without those by which a TPU shifts
        return product_flops(encode, abstract_model(config), features, lengths)


def make_report(
    name: str,
    config: ModelConfig,
    seconds: float,
    batch: int,
    rate: float,
    methods: Mapping[str, Measurement],
) -> Report:
    """Returns the report of one size; `rate` is that of a product alone, in flop/s."""
    flops, context = encoder_flops(config, seconds, batch), config.encoder.attention_context
    first = next(iter(methods.values()))
    lines = [
        f"{name}: encoder of {batch} x {seconds:g} s, attention "
        f"{'full' if context is None else context}; {flops / 1e9:.0f} GFLOP; products alone "
        f"{rate / 1e9:.0f} GFLOP/s; on {first.device}"
    ]
    for method, cost in methods.items():
        memory = [
            f"{label} {value / 1e6:.0f} MB"
            for label, value in (("temporaries", cost.temporary_bytes), ("peak", cost.peak_bytes))
            if value is not None
        ]
        lines.append(
            f"  {method:14s} {cost.seconds:8.3f} s  {batch * seconds / cost.seconds:7.1f} x real "
            f"time  {flops / cost.seconds / rate:5.2f} of the products' rate  " + "  ".join(memory)
        )
        if cost is not first:
            lines[-1] += f"  {first.seconds / cost.seconds:.2f} = ours / theirs"
    rows = [{"method": key, "flops": flops, **cost._asdict()} for key, cost in methods.items()]
    return Report(rows, "\n".join(lines))
