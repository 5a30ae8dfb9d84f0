"""The transducer: encoder, predictor and joint, and an optional CTC head and language prompt."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.lax import Precision

from tdt_jax.config import ModelConfig
from tdt_jax.models.encoder import Encoder, EncoderState
from tdt_jax.models.joint import Joint
from tdt_jax.models.predictor import Predictor
from tdt_jax.models.prompt import Prompt
from tdt_jax.runtime.pytree import from_named_leaves, leaf_name, named_leaves

# Of all parameters, or of one of a given name and shape.
Placement = jax.sharding.Sharding | Callable[[str, tuple[int, ...]], jax.sharding.Sharding]


class Transducer(nnx.Module):
    """A TDT, or an RNN-T where `config.durations` is None: one pytree of parameters.

    `predictor` and `joint` are None in a CTC model, `ctc` is None in a model without a CTC head,
    `prompt` is None in a model without a language prompt.
    """

    predictor: Predictor | None
    joint: Joint | None
    ctc: nnx.Linear | None
    prompt: Prompt | None

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        dtype, vocab_size = jnp.dtype(config.dtype), config.vocab_size
        width = config.encoder.width
        self.encoder = Encoder(config.encoder, config.features.num_mels, dtype=dtype, rngs=rngs)
        if config.predictor is None or config.joint is None:
            self.predictor, self.joint = None, None
        else:
            self.predictor = Predictor(config.predictor, vocab_size, dtype=dtype, rngs=rngs)
            self.joint = Joint(
                config.joint,
                frame_width=width,
                state_width=config.predictor.width,
                vocab_size=vocab_size,
                num_durations=len(config.durations or ()),
                dtype=dtype,
                rngs=rngs,
            )
        head = functools.partial(nnx.Linear, dtype=dtype, rngs=rngs, precision=Precision.HIGHEST)
        self.ctc = head(width, vocab_size + 1) if config.ctc else None
        self.prompt = config.prompt and Prompt(config.prompt, width, dtype=dtype, rngs=rngs)
        self.config = config

    def prompted(
        self, frames: jax.Array, num_frames: jax.Array, prompt: jax.Array | None = None
    ) -> jax.Array:
        """Returns the encoder's frames [B, T, D] as the joint network and the CTC head take them.

        They are unchanged in a model without a language prompt; `prompt` as of `encode`.
        """
        if self.prompt is None:
            if prompt is not None:
                raise ValueError("the model has no language prompt (model.prompt is none)")
            return frames
        if prompt is not None and (
            prompt.shape != num_frames.shape or not jnp.issubdtype(prompt.dtype, jnp.integer)
        ):
            raise ValueError(
                f"prompt must be integers [B] for {len(num_frames)} utterances, got "
                f"{prompt.dtype}{list(prompt.shape)}"
            )
        return self.prompt(frames, num_frames, prompt)


@functools.partial(jax.jit, static_argnames="context")
def encode(
    model: Transducer,
    features: jax.Array,
    num_features: jax.Array,
    *,
    context: tuple[int, ...] | None = None,
    prompt: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Encodes features [B, M, F] of lengths [B]. Returns frames [B, T, D] of lengths [B].

    T is M / 8 rounded up, of a causal model (M + 6) // 8 + 1; a frame stands for 80 ms. Frames
    beyond an utterance's length are zero.

    Args:
      model: any.
      features: [B, M, F].
      num_features: [B] int.
      context: attention context, one of those that the model was trained with: (left, right) frames
        of `chunked_contexts`, or (left, chunk, right) of `unified_contexts`. None: the first of
        the former, and full attention for the latter.
      prompt: [B] int, the slot of each utterance in a model with a language prompt:
        `model.config.prompt.slot(language)`. None: the default.

    Raises:
      ValueError: if the shapes don't fit the model, or it does not have the context or a prompt.
    """
    _check_features("encode", model, features, num_features)
    frames, num_frames = model.encoder(features, num_features, context=context)
    return model.prompted(frames, num_frames, prompt), num_frames


def start_encoding(
    model: Transducer, batch_size: int, context: tuple[int, int] | None = None
) -> EncoderState:
    """Returns the state of `encode_chunk` at the start of `batch_size` utterances.

    Args:
      model: causal.
      batch_size: B.
      context: (left, right) frames, one of `model.config.encoder.chunked_contexts`; None: the
        first of them.

    Raises:
      ValueError: if the model is not causal, or does not have the context.
    """
    return model.encoder.start(batch_size, context)


def with_separate_blocks(model: Transducer) -> Transducer:
    """Returns the model with an array of its own for each parameter of each encoder block.

    Every function computes the same with it. On a CPU `encode_chunk` takes half the time or less
    for few rows, and longer to compile, and the parameters share memory with those of `model`;
    elsewhere those of the encoder's blocks are a copy. It can be neither trained nor saved.
    """
    encoder = model.encoder.with_separate_blocks()
    model = jax.tree.map(lambda leaf: leaf, model)
    model.encoder = encoder
    return model


@jax.jit
def encode_chunk(
    model: Transducer,
    features: jax.Array,
    num_features: jax.Array,
    state: EncoderState,
    last: jax.Array | None = None,
    prompt: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, EncoderState]:
    """Encodes the features that come next of each utterance, from the state before them.

    Piece after piece this returns the frames that `encode` returns for the whole, in the same
    context, however the features are cut. A chunk's frames come when the last feature that they
    depend on has: frame n needs the features up to 8 (n + C - 1 - n % C), where C is
    `state.chunk`. A piece of 8C features completes one chunk.

    Args:
      model: causal.
      features: [B, M, F], the next of each utterance; rows may be at any place of theirs.
      num_features: [B] int, how many; 0 for a row that waits.
      state: from `start_encoding`, or after the piece before.
      last: [B] bool, True in rows whose utterance ends with these features: all its frames are
        returned, and the row begins a new utterance. None: no row ends.
      prompt: as of `encode`.

    Returns:
      frames [B, T, D] of lengths [B], and the state after them.

    Raises:
      ValueError: if the shapes don't fit.
    """
    _check_features("encode_chunk", model, features, num_features)
    if state.num_frames.shape != num_features.shape:
        raise ValueError(
            f"encode_chunk needs a state of {len(num_features)} rows, got {len(state.num_frames)}"
        )
    if last is None:
        last = jnp.zeros(num_features.shape, bool)
    if last.shape != num_features.shape:
        raise ValueError(
            f"encode_chunk needs last [B] for features [B, M, F], got {last.shape} and "
            f"{len(num_features)} rows"
        )
    num_features = num_features.astype(jnp.int32)
    frames, num_frames, state = model.encoder.step(features, num_features, state, last)
    return model.prompted(frames, num_frames, prompt), num_frames, state


def _check_features(
    name: str, model: Transducer, features: jax.Array, num_features: jax.Array
) -> None:
    num_mels = model.config.features.num_mels
    if features.ndim != 3 or features.shape[1] == 0 or features.shape[2] != num_mels:
        raise ValueError(f"{name} needs features [B, M > 0, {num_mels}], got {features.shape}")
    if num_features.shape != features.shape[:1]:
        raise ValueError(
            f"{name} needs num_features [B] for features [B, M, F], got "
            f"{num_features.shape} and {features.shape}"
        )


def abstract_model(
    config: ModelConfig, dtype: str | None = None, sharding: Placement | None = None
) -> Transducer:
    """Returns a model of `jax.ShapeDtypeStruct`s: its parameters' shapes, dtypes and shardings.

    Args:
      config: of the model.
      dtype: of all parameters; None: as a new model has them.
      sharding: where the parameters go; None: to the default device.
    """
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def leaf(path, leaf):
        placed = sharding(leaf_name(path), leaf.shape) if callable(sharding) else sharding
        return jax.ShapeDtypeStruct(
            leaf.shape, jnp.dtype(dtype or leaf.dtype), sharding=placed or default
        )

    return jax.tree.map_with_path(leaf, _shapes(config))


@functools.cache
def _shapes(config: ModelConfig) -> Transducer:
    """Returns the shapes and dtypes of a new model, traced once for each configuration."""
    return jax.eval_shape(lambda: Transducer(config, rngs=nnx.Rngs(0)))


class MismatchError(ValueError):
    """A checkpoint does not fit its configuration; the message names every tensor that differs."""


def with_parameters(model: Transducer, source: Transducer) -> Transducer:
    """Returns `model` with the parameters of `source`, of the same architecture and features.

    Settings that only training or speed depend on (dropout, dtype, attention context) may differ,
    and so may the normalization of features: a few hundred steps of training adapt to another.

    Raises:
      MismatchError: naming every setting that gives the parameters another meaning, and every
        parameter that is missing, extra or of another shape.
    """
    expected, given = _meaning(model.config), _meaning(source.config)
    problems = [
        f"{key} is {given[key]}, expected {value}"
        for key, value in expected.items()
        if given[key] != value
    ]
    wanted, parameters = named_leaves(model), named_leaves(source)
    problems += [f"missing {key}" for key in wanted if key not in parameters]
    problems += [f"extra {key}" for key in parameters if key not in wanted]
    problems += [
        f"{key} is {parameters[key].shape}, expected {leaf.shape}"
        for key, leaf in wanted.items()
        if key in parameters and parameters[key].shape != leaf.shape
    ]
    if problems:
        raise MismatchError("the parameters do not fit the model: " + "; ".join(problems))
    return from_named_leaves(parameters, model)


def _meaning(config: ModelConfig) -> dict:
    """Returns by name the settings, beside shapes, on which the meaning of parameters depends."""
    encoder, features = config.encoder, dataclasses.asdict(config.features)
    for name in ("dither", "normalize", "silence"):
        features.pop(name)
    return {
        "durations": config.durations,
        "encoder.num_heads": encoder.num_heads,
        "encoder.scale_input": encoder.scale_input,
        "encoder.convolution_norm": encoder.convolution_norm,
        "encoder.convolution_context": encoder.convolution_sides,
        "encoder.causal_subsampling": encoder.causal_subsampling,
        **{f"features.{key}": value for key, value in features.items()},
    }
