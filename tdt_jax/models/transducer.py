"""The transducer: encoder, predictor and joint, and an optional CTC head."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from tdt_jax.config import ModelConfig
from tdt_jax.models.encoder import Encoder
from tdt_jax.models.joint import Joint
from tdt_jax.models.predictor import Predictor
from tdt_jax.runtime.pytree import from_named_leaves, leaf_name, named_leaves

Placement = jax.sharding.Sharding | Callable[[str, tuple[int, ...]], jax.sharding.Sharding]


class MismatchError(ValueError):
    """A checkpoint does not hold what its configuration says; the message names every tensor."""


class Transducer(nnx.Module):
    """A TDT, or an RNN-T where `config.durations` is None: one pytree of parameters.

    `predictor` and `joint` are None in a CTC model, `ctc` is None in a model without a CTC head.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        dtype = jnp.dtype(config.dtype)
        options = dict(dtype=dtype, rngs=rngs)
        self.encoder = Encoder(config.encoder, config.features.num_mels, **options)
        vocab_size, is_ctc = config.vocab_size, config.predictor is None
        self.predictor = None if is_ctc else Predictor(config.predictor, vocab_size, **options)
        self.joint = (
            None
            if is_ctc
            else Joint(
                config.joint,
                frame_width=config.encoder.width,
                state_width=config.predictor.width,
                vocab_size=vocab_size,
                num_durations=len(config.durations or ()),
                **options,
            )
        )
        self.ctc = (
            nnx.Linear(config.encoder.width, vocab_size + 1, **options) if config.ctc else None
        )
        self.config = config


@jax.jit
def encode(model: Transducer, features, num_features):
    """Encode features [B, M, F] of lengths [B] into frames [B, T, D] of lengths [B].

    T is M / 8 rounded up; a frame stands for 80 ms. Frames beyond an utterance's length are zero.

    Raises:
      ValueError: if the shapes don't fit the model.
    """
    num_mels = model.config.features.num_mels
    if features.ndim != 3 or features.shape[1] == 0 or features.shape[2] != num_mels:
        raise ValueError(f"encode needs features [B, M > 0, {num_mels}], got {features.shape}")
    if num_features.shape != features.shape[:1]:
        raise ValueError(
            "encode needs num_features [B] for features [B, M, F], got "
            f"{num_features.shape} and {features.shape}"
        )
    return model.encoder(features, num_features)


def with_parameters(model: Transducer, source: Transducer) -> Transducer:
    """`model` with the parameters of `source`; what they mean must be the same.

    Settings that only training or speed depend on (dropout, dtype, attention context) may differ,
    and so may the normalisation of features: a few hundred steps make up for another.

    Raises:
      MismatchError: naming every setting that gives the parameters another meaning, and every
        parameter that one has and the other has not, or in another shape.
    """
    mine, theirs = _meaning(model.config), _meaning(source.config)
    problems = [
        f"{key} is {theirs.get(key)}, expected {value}"
        for key, value in mine.items()
        if theirs.get(key) != value
    ]
    wanted, given = named_leaves(model), named_leaves(source)
    problems += [f"missing {key}" for key in wanted if key not in given]
    problems += [f"extra {key}" for key in given if key not in wanted]
    problems += [
        f"{key} is {given[key].shape}, expected {leaf.shape}"
        for key, leaf in wanted.items()
        if key in given and given[key].shape != leaf.shape
    ]
    if problems:
        raise MismatchError("the parameters do not fit the model: " + "; ".join(problems))
    return from_named_leaves(given, model)


def _meaning(config: ModelConfig) -> dict:
    """The settings by name that say what parameters mean, beside their shapes."""
    encoder, features = config.encoder, dataclasses.asdict(config.features)
    for name in ("dither", "normalize", "silence"):
        features.pop(name)
    return {
        "durations": config.durations,
        "encoder.num_heads": encoder.num_heads,
        "encoder.scale_input": encoder.scale_input,
        "encoder.convolution_norm": encoder.convolution_norm,
        **{f"features.{key}": value for key, value in features.items()},
    }


def abstract_model(
    config: ModelConfig, dtype: str | None = None, sharding: Placement | None = None
):
    """The shapes of a model's parameters, and where they go: to the default device if not said."""
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def leaf(path, leaf):
        where = sharding(leaf_name(path), leaf.shape) if callable(sharding) else sharding
        return jax.ShapeDtypeStruct(
            leaf.shape, jnp.dtype(dtype or leaf.dtype), sharding=where or default
        )

    return jax.tree.map_with_path(leaf, _shapes(config))


@functools.cache
def _shapes(config: ModelConfig) -> Transducer:
    """Returns the shapes and dtypes of a new model, traced once for each configuration."""
    return jax.eval_shape(lambda: Transducer(config, rngs=nnx.Rngs(0)))
