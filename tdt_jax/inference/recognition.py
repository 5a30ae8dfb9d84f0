"""Samples to hypotheses, on the device that a model lies on, or on several by rows."""

import functools

import jax

from tdt_jax.decoding.ctc import ctc_decode
from tdt_jax.decoding.greedy import greedy_decode
from tdt_jax.decoding.hypothesis import Hypothesis
from tdt_jax.models.features import log_mel
from tdt_jax.models.transducer import Transducer, encode
from tdt_jax.runtime import sharding


def decode_samples(model: Transducer, samples, num_samples, *, decoder: str = "") -> Hypothesis:
    """Samples [B, S] of lengths [B] to hypotheses: three compiled programs, one after another.

    `decoder` is "transducer" or "ctc", of a model that has both; by default the first that it has.
    """
    features, num_features = log_mel(samples, num_samples, model.config.features)
    frames, num_frames = encode(model, features, num_features)
    decoders = model.config.decoders
    if decoder and decoder not in decoders:
        raise ValueError(f"no decoder {decoder!r} in this model; it has {' and '.join(decoders)}")
    if (decoder or decoders[0]) == "ctc":
        return ctc_decode(model, frames, num_frames)
    return greedy_decode(model, frames, num_frames, max_symbols=model.config.max_symbols)


def devices_of(model: Transducer) -> int:
    """How many devices share the rows of a batch: those that the model lies on."""
    mesh = _mesh(model)
    return 1 if mesh is None else mesh.size


def decode_samples_on_mesh(
    model: Transducer, samples, num_samples, *, decoder: str = ""
) -> Hypothesis:
    """As `eval_step`, of arrays in the host's memory, on all devices that the model lies on.

    Each of them has a copy (`tdt_jax.runtime.sharding.replicated`), takes rows of its own, and
    waits for none.

    Raises:
      ValueError: as `eval_step`, and if B is not a multiple of the number of devices.
    """
    mesh = _mesh(model)
    if mesh is None:
        return decode_samples(model, *jax.device_put((samples, num_samples)), decoder=decoder)
    arrays = sharding.shard_batch((samples, num_samples), mesh)
    return _decode_samples_on(model, *arrays, mesh=mesh, decoder=decoder)


@functools.partial(jax.jit, static_argnames=("mesh", "decoder"))
def _decode_samples_on(model, samples, num_samples, *, mesh, decoder: str) -> Hypothesis:
    run = functools.partial(decode_samples, decoder=decoder)
    return sharding.map_rows(run, mesh, num_replicated=1)(model, samples, num_samples)


def _mesh(model: Transducer) -> jax.sharding.Mesh | None:
    """That of more than one device which the model lies on."""
    placed = jax.tree.leaves(model)[0].sharding
    several = isinstance(placed, jax.sharding.NamedSharding) and placed.mesh.size > 1
    return placed.mesh if several else None
