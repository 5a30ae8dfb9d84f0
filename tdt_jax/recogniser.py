"""A recogniser is a model with its tokenizer, and what else can be made of one."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from tdt_jax.config import ModelConfig
from tdt_jax.model import Transducer

PIECE_SECONDS = 30.72  # of long audio heard at once, where the model's config says nothing

Placement = jax.sharding.Sharding | Callable[[str, tuple[int, ...]], jax.sharding.Sharding]


class MismatchError(ValueError):
    """A checkpoint does not hold what its configuration says; the message names every tensor."""


@dataclass(frozen=True)
class Recogniser:
    """All it takes to turn audio into text."""

    model: Transducer
    tokenizer: object  # a tokenizer of tdt_jax.tokenizer

    def __post_init__(self):
        if self.tokenizer.vocab_size != self.config.vocab_size:
            raise ValueError(
                f"the tokenizer has {self.tokenizer.vocab_size} pieces, the model "
                f"{self.config.vocab_size}"
            )

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    def check_decoder(self, decoder: str) -> None:
        """Raise ValueError unless `decoder` is empty or one that the model has."""
        if decoder and decoder not in self.config.decoders:
            raise ValueError(
                f"there is no decoder {decoder!r} in this model; it has "
                + " and ".join(self.config.decoders)
            )


def with_attention_context(recogniser: Recogniser, context: tuple[int, int] | None) -> Recogniser:
    """The same recogniser with attention over `context` (left, right) frames; None: over all.

    Memory then grows with the length of the audio, not with its square. A model that was trained
    with full attention hardly suffers from (128, 128) or (256, 256) frames of 80 ms (Rekesh et al.,
    2023, arXiv 2305.05084, section 3).
    """
    config = recogniser.config
    encoder = dataclasses.replace(config.encoder, attention_context=context)
    structure = jax.tree.structure(abstract_model(dataclasses.replace(config, encoder=encoder)))
    model = jax.tree.unflatten(structure, jax.tree.leaves(recogniser.model))
    return dataclasses.replace(recogniser, model=model)


def without_ctc(recogniser: Recogniser) -> Recogniser:
    """The same recogniser without the CTC head beside its transducer."""
    from tdt_jax.runtime.pytree import from_named_leaves, named_leaves

    config = recogniser.config
    if config.predictor is None:
        raise ValueError("this is a CTC model: without its CTC head nothing is left to decode with")
    leaves = {key: x for key, x in named_leaves(recogniser.model).items() if key[:4] != "ctc."}
    model = from_named_leaves(leaves, abstract_model(dataclasses.replace(config, ctc=False)))
    return dataclasses.replace(recogniser, model=model)


def with_parameters(model: Transducer, source: Transducer) -> Transducer:
    """`model` with the parameters of `source`; what they mean must be the same.

    Settings that only training or speed depend on (dropout, dtype, attention context) may differ,
    and so may the normalisation of features: a few hundred steps make up for another.

    Raises:
      MismatchError: naming every setting that gives the parameters another meaning, and every
        parameter that one has and the other has not, or in another shape.
    """
    from tdt_jax.runtime.pytree import from_named_leaves, named_leaves

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
    from flax import nnx

    from tdt_jax.runtime.pytree import leaf_name

    shapes = jax.eval_shape(lambda: Transducer(config, rngs=nnx.Rngs(0)))
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def leaf(path, leaf):
        where = sharding(leaf_name(path), leaf.shape) if callable(sharding) else sharding
        return jax.ShapeDtypeStruct(
            leaf.shape, jnp.dtype(dtype or leaf.dtype), sharding=where or default
        )

    return jax.tree.map_with_path(leaf, shapes)
