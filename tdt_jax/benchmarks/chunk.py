"""The time of a streaming step: features, encoder and decoder of the next chunk of each stream.

Weights are random, and each frame emits one label, more than speech has. transformers' time is that
of its encoder alone, with its cache. Every measurement runs in a process of its own; compare the
figures of one call with each other, and with nothing else.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.benchmarks.cases import CAUSAL_MODELS, choose, random_model
from tdt_jax.benchmarks.peers import measure_peer_chunk, require_peers
from tdt_jax.benchmarks.report import Report
from tdt_jax.benchmarks.timing import Measurement, in_subprocess, median_seconds, timed
from tdt_jax.config import ModelConfig
from tdt_jax.decoding.greedy import decode_chunk, start_decoding
from tdt_jax.decoding.hypothesis import DecoderState, Hypothesis
from tdt_jax.models.encoder import EncoderState
from tdt_jax.models.features import FeatureState, log_mel_chunk, start_log_mel
from tdt_jax.models.transducer import (
    Transducer,
    encode_chunk,
    start_encoding,
    with_separate_blocks,
)
from tdt_jax.profiling.target import memory_of

Context = tuple[int, int]


class StreamState(NamedTuple):
    """What streams carry from chunk to chunk."""

    features: FeatureState
    encoder: EncoderState
    decoder: DecoderState


def start(model: Transducer, batch: int, context: Context) -> StreamState:
    """Returns the state at the start of `batch` streams."""
    return StreamState(
        start_log_mel(batch, model.config.features),
        start_encoding(model, batch, context),
        start_decoding(model, batch),
    )


@functools.partial(jax.jit, donate_argnames="state")
def step(
    model: Transducer, samples: jax.Array, num_samples: jax.Array, state: StreamState
) -> tuple[Hypothesis, StreamState]:
    """Returns the labels of the next samples [B, S] of each stream, one for each frame."""
    features, num_features, feature_state = log_mel_chunk(
        samples, num_samples, state.features, model.config.features
    )
    frames, num_frames, encoder = encode_chunk(model, features, num_features, state.encoder)
    hypothesis, decoder = decode_chunk(model, frames, num_frames, state.decoder, max_symbols=1)
    return hypothesis, StreamState(feature_state, encoder, decoder)


@functools.partial(jax.jit, donate_argnames="state")
def encoder_step(
    model: Transducer, features: jax.Array, num_features: jax.Array, state: EncoderState
) -> tuple[jax.Array, EncoderState]:
    """Returns the frames of the next features [B, M, F] of each stream."""
    frames, _, state = encode_chunk(model, features, num_features, state)
    return frames, state


def chunk_reports(
    names: Sequence[str],
    *,
    batches: Sequence[int],
    rights: Sequence[int],
    dtype: str,
    repeats: int,
    peers: bool,
) -> Iterator[Report]:
    """Yields a report for each size of `cases.CAUSAL_MODELS`, look-ahead and number of streams.

    Args:
      names: of the sizes.
      batches: numbers of streams.
      rights: frames that the first frame of a chunk looks ahead.
      dtype: of parameters and computation; transformers' are float32.
      repeats: chunks of which the median counts, after those that fill the caches.
      peers: whether to measure transformers' encoder too.

    Raises:
      ValueError: for an unknown size or look-ahead, and if transformers is not installed but asked
        for.
    """
    configs = choose(names, CAUSAL_MODELS)
    if peers:
        require_peers()
    for name, config in configs.items():
        for right in rights:
            context = context_of(config, right)
            for batch in batches:
                sizes = config, context, batch
                whole, encoder = in_subprocess(_measure, *sizes, dtype, repeats)
                theirs = in_subprocess(measure_peer_chunk, *sizes, repeats) if peers else None
                methods = {"tdt_jax": whole, "tdt_jax, encoder": encoder}
                if theirs:
                    methods["transformers, encoder"] = theirs
                yield make_report(name, context, batch, methods)


def context_of(config: ModelConfig, right: int) -> Context:
    """Returns the model's attention context with this look-ahead.

    Raises:
      ValueError: if the model has none.
    """
    contexts = config.encoder.chunked_contexts
    for context in contexts:
        if context[1] == right:
            return context
    known = ", ".join(str(right) for _, right in contexts)
    raise ValueError(f"the model looks ahead {known} frames, not {right}")


def _measure(
    config: ModelConfig, context: Context, batch: int, dtype: str, repeats: int
) -> tuple[Measurement, Measurement]:
    """Returns the cost of a step of `batch` streams, and that of its encoder alone."""
    model = random_model(config, dtype)
    if jax.default_backend() == "cpu":
        model = with_separate_blocks(model)
    rng, size = np.random.default_rng(0), num_samples(config, context)
    samples = 0.1 * rng.standard_normal((batch, size), dtype=np.float32)
    shape = batch, size // config.features.hop_length, config.features.num_mels
    features = rng.standard_normal(shape, dtype=np.float32)
    state = start(model, batch, context)
    inputs = (samples, np.full(batch, size)), (features, np.full(batch, shape[1]))
    state, encoder = jax.tree.map(jnp.array, (state, state.encoder))  # each is donated
    fill = -(-context[0] // (context[1] + 1))  # chunks until the cache is full
    return (
        _measure_step(step, model, jax.device_put(inputs[0]), state, fill, repeats),
        _measure_step(encoder_step, model, jax.device_put(inputs[1]), encoder, fill, repeats),
    )


def num_samples(config: ModelConfig, context: Context) -> int:
    """Returns the samples of a chunk."""
    return 8 * config.features.hop_length * (context[1] + 1)


def _measure_step(
    function: Any, model: Transducer, inputs: tuple, state: Any, fill: int, repeats: int
) -> Measurement:
    """Returns the cost of a step that takes and returns a state, after `fill` steps."""
    lowered = function.lower(model, *inputs, state)
    compile_seconds, compiled = timed(lowered.compile)

    def run():
        nonlocal state
        result, state = jax.block_until_ready(compiled(model, *inputs, state))
        return result

    for _ in range(fill):
        run()
    seconds, _ = median_seconds(run, repeats)
    device, temporary = jax.devices()[0].device_kind, memory_of(compiled).temp_size_in_bytes
    return Measurement(seconds, compile_seconds, temporary, None, device)


def make_report(
    name: str, context: Context, batch: int, methods: Mapping[str, Measurement]
) -> Report:
    """Returns the report of one size, context and number of streams."""
    ours, encoder, *theirs = methods.values()
    duration = 0.08 * (context[1] + 1)
    lines = [
        f"{name}: a step of {batch} x {1e3 * duration:g} ms in context {context}, compiled in "
        f"{ours.compile_seconds:.0f} s; on {ours.device}",
        f"  tdt_jax       {1e3 * ours.seconds:8.1f} ms, of which the encoder "
        f"{1e3 * encoder.seconds:.1f} ms; {batch * duration / ours.seconds:.1f} x real time",
    ]
    for each in theirs:
        lines.append(
            f"  transformers  {1e3 * each.seconds:8.1f} ms, the encoder alone; on {each.device}; "
            f"{encoder.seconds / each.seconds:.2f} = ours / theirs"
        )
    rows = [
        {"case": name, "context": context, "batch": batch, "method": method, **cost._asdict()}
        for method, cost in methods.items()
    ]
    return Report(rows, "\n".join(lines))
