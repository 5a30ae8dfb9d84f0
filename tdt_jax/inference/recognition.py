"""Decodes samples to hypotheses, on the device that a model lies on, or by rows on several."""

import functools

import jax
import numpy as np

from tdt_jax.decoding.advice import Advice
from tdt_jax.decoding.automaton import Automaton
from tdt_jax.decoding.ctc import ctc_decode
from tdt_jax.decoding.greedy import greedy_decode
from tdt_jax.decoding.hypothesis import Hypothesis
from tdt_jax.models.features import log_mel
from tdt_jax.models.transducer import Transducer, encode
from tdt_jax.runtime import sharding


def decode_samples(
    model: Transducer,
    samples: jax.Array | np.ndarray,
    num_samples: jax.Array | np.ndarray,
    *,
    decoder: str = "",
    advice: Advice | None = None,
) -> Hypothesis:
    """Decodes samples [B, S] of lengths [B]: features, frames and hypothesis, a program each.

    Args:
      decoder: "transducer" or "ctc", of a model that has both; by default the first that it has.
      advice: what the transducer expects of each row.

    Raises:
      ValueError: for a decoder that the model does not have.
    """
    decoders = model.config.decoders
    if decoder and decoder not in decoders:
        raise ValueError(f"no decoder {decoder!r} in this model; it has {' and '.join(decoders)}")
    features, num_features = log_mel(samples, num_samples, model.config.features)
    frames, num_frames = encode(model, features, num_features)
    return _decode_frames(model, frames, num_frames, decoder or decoders[0], advice)


def decode_samples_on_mesh(
    model: Transducer,
    samples: np.ndarray,
    num_samples: np.ndarray,
    *,
    decoder: str = "",
    advice: Advice | None = None,
) -> Hypothesis:
    """Decodes samples in the host's memory on all devices that the model lies on.

    As `decode_samples`. Each device has a copy of the model
    (`tdt_jax.runtime.sharding.replicated`), decodes rows of its own, and waits for no other.

    Raises:
      ValueError: as `decode_samples`, and if B is not a multiple of the number of devices.
    """
    mesh = _mesh(model)
    if mesh is None:
        arrays = jax.device_put((samples, num_samples))
        return decode_samples(model, *arrays, decoder=decoder, advice=advice)
    automata, chosen = advice or ((), ())
    arrays = sharding.shard_batch((samples, num_samples, chosen), mesh)
    return _decode_samples_on(model, automata, *arrays, mesh=mesh, decoder=decoder)


def devices_of(model: Transducer) -> int:
    """Returns the number of devices that share the rows of a batch: those the model lies on."""
    mesh = _mesh(model)
    return 1 if mesh is None else mesh.size


def _decode_frames(
    model: Transducer,
    frames: jax.Array,
    num_frames: jax.Array,
    decoder: str,
    advice: Advice | None,
) -> Hypothesis:
    """Decodes frames [B, T, D] of lengths [B]; the one place that knows the decoders."""
    if decoder == "ctc":
        return ctc_decode(model, frames, num_frames)
    options = dict(max_symbols=model.config.max_symbols, advice=advice)
    return greedy_decode(model, frames, num_frames, **options)


@functools.partial(jax.jit, static_argnames=("mesh", "decoder"))
def _decode_samples_on(
    model: Transducer,
    automata: tuple[Automaton, ...],
    samples: jax.Array,
    num_samples: jax.Array,
    chosen: tuple[jax.Array, ...],
    *,
    mesh: jax.sharding.Mesh,
    decoder: str,
) -> Hypothesis:
    def run(model, automata, samples, num_samples, chosen):
        advice = Advice(automata, chosen) if automata else None
        return decode_samples(model, samples, num_samples, decoder=decoder, advice=advice)

    mapped = sharding.map_rows(run, mesh, num_replicated=2)
    return mapped(model, automata, samples, num_samples, chosen)


def _mesh(model: Transducer) -> jax.sharding.Mesh | None:
    """Returns the mesh that the model lies on, if it is of more than one device."""
    placed = jax.tree.leaves(model)[0].sharding
    mesh = placed.mesh if isinstance(placed, jax.sharding.NamedSharding) else None
    return mesh if isinstance(mesh, jax.sharding.Mesh) and mesh.size > 1 else None
