"""Tiny models with random parameters, for the tests: built without compiling anything."""

import dataclasses
import functools
import zlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import mixed
import numpy as np
from flax import nnx
from run_config import get_config

import tdt_jax as tdt
from tdt_jax import tokenizer as tokenizers
from tdt_jax.config import (
    EncoderConfig,
    FeatureConfig,
    JointConfig,
    ModelConfig,
    PredictorConfig,
)
from tdt_jax.decoding.hypothesis import Hypothesis
from tdt_jax.models.transducer import abstract_model

NUM_MELS = 16


def encoder_config(**changes) -> EncoderConfig:
    options = dict(
        width=16, num_layers=2, num_heads=2, feed_forward_factor=2, kernel_size=5,
        subsampling_channels=4,
    )  # fmt: skip
    return EncoderConfig(**{**options, **changes})


def config(durations=(0, 1, 2), encoder=None, **changes) -> ModelConfig:
    options = dict(
        vocab_size=6,
        durations=durations,
        features=FeatureConfig(num_mels=NUM_MELS),
        encoder=encoder or encoder_config(),
        predictor=PredictorConfig(width=8, num_layers=2),
        joint=JointConfig(width=12),
    )
    return ModelConfig(**{**options, **changes})


def build(make, seed: int = 0):
    """Returns what `make()` builds, with random values for all parameters, biases and norms too."""
    return fill(jax.eval_shape(make), seed)


def fill(shapes, seed: int = 0):
    """Returns random values of the given shapes."""
    rng = np.random.default_rng(seed)

    def leaf_values(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        values = rng.normal(size=leaf.shape)
        if name.removesuffix(".value").endswith("scale"):
            values = 1 + 0.1 * values
        elif len(leaf.shape) > 1:
            values /= np.sqrt(leaf.shape[-2])
        else:
            values *= 0.1
        return jnp.asarray(values.astype(leaf.dtype))

    return jax.tree_util.tree_map_with_path(leaf_values, shapes)


def transducer(model_config: ModelConfig | None = None, seed: int = 0) -> tdt.Transducer:
    """Returns a model with random values for all parameters."""
    return fill(abstract_model(model_config or config()), seed)


def emitting(model_config: ModelConfig, seed: int = 1) -> tdt.Transducer:
    """Random, with heads so scaled that frames, labels so far, tokens and durations all matter."""
    model = transducer(model_config, seed)
    joint = model.joint
    joint.state_projection.kernel[...] = 4 * np.asarray(joint.state_projection.kernel[...])
    for head in [joint.token_head] + [joint.duration_head] * (model_config.durations is not None):
        kernel = np.asarray(head.kernel[...])
        head.kernel[...] = 4 * (kernel - kernel.mean(axis=0))
    bias = np.array(joint.token_head.bias[...])
    bias[-1] += 2  # blank
    joint.token_head.bias[...] = bias
    return model


def numpy_model(model):
    """Returns the model with numpy's arrays, so that single operations on them compile nothing."""
    return jax.tree.map(np.asarray, model)


TEXTS = ["one two three, four five six.", "it's seven eight nine ten"] * 5


@functools.cache
def sentencepiece():
    return tokenizers.train_sentencepiece(TEXTS, 40)


def make_recogniser(
    durations=(0, 1, 2), tokenizer=None, blank_bias=2.0, piece_seconds=None, **changes
) -> tdt.Recogniser:
    """A random recogniser that emits different labels all along.

    With `piece_seconds` of 2.56, as most tests have it, batches have two shapes only. `changes` are
    of its configuration.
    """
    tokenizer = tokenizer or sentencepiece()
    config = dataclasses.replace(
        get_config().model,
        vocab_size=tokenizer.vocab_size,
        durations=durations,
        piece_seconds=piece_seconds,
        **changes,
    )
    bias = np.array([piece.startswith("▁") for piece in tokenizer.pieces] + [blank_bias / 2])
    gains = {"frame_projection": 2, "state_projection": 4, "token_head": 2}

    def fill(path, leaf):
        """Values that depend on the name and the shape alone; biases are zero."""
        name = jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")
        if name == "joint.token_head.bias":
            values = bias
        elif "bias" in name:
            values = np.zeros(leaf.shape)
        elif len(leaf.shape) < 2:
            values = np.ones(leaf.shape)
        else:
            rng = np.random.default_rng([30, zlib.crc32(name.encode())])
            fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) == 4 else leaf.shape[-2]
            gain = next((gains[part] for part in name.split(".") if part in gains), 1)
            values = rng.normal(size=leaf.shape) * gain
            values = values if name.endswith("embedding") else values / np.sqrt(fan_in)
        return jnp.asarray(values.astype(leaf.dtype))

    model = jax.tree_util.tree_map_with_path(fill, abstract_model(config))
    return tdt.Recogniser(model, tokenizer)


def causal_config() -> ModelConfig:
    """The configuration of an RNN-T that streams with look-aheads of 160, 80 and 0 ms."""
    encoder = encoder_config(
        num_layers=1,
        chunked_contexts=((6, 2), (6, 1), (6, 0)),
        convolution_context=(4, 0),
        causal_subsampling=True,
    )
    features = FeatureConfig(num_mels=NUM_MELS, normalize=(0.0, 1.0))
    return config(durations=None, encoder=encoder, features=features)


def causal_recogniser(durations=(0, 1, 2), **options) -> tdt.Recogniser:
    """A random recogniser that streams with look-aheads of 160, 80 and 0 ms."""
    encoder = encoder_config(
        chunked_contexts=((6, 2), (6, 1), (6, 0)),
        convolution_context=(4, 0),
        causal_subsampling=True,
    )
    features = FeatureConfig(num_mels=NUM_MELS, normalize=(-8.0, 4.0))
    return make_recogniser(durations, encoder=encoder, features=features, **options)


def with_tags():
    """A recogniser that emits three words and three tags, one of them of a language."""
    recogniser = make_recogniser(tokenizer=mixed.tokenizer(), piece_seconds=2.56)
    head = recogniser.model.joint.token_head
    bias = np.array(jax.device_get(head.bias[...]))
    bias[mixed.spell("▁the", "▁it", "▁東京", "<|ja|>", "<|endoftext|>", "<unk>")] += 6.0
    bias[-1] += 4.5
    head.bias = nnx.Param(jnp.asarray(bias))
    return recogniser


def without_model(tokenizer):
    """A recogniser for transcripts of hypotheses that come from elsewhere."""
    config = ModelConfig(vocab_size=tokenizer.vocab_size, durations=(0, 1, 2, 3, 4))
    return SimpleNamespace(tokenizer=tokenizer, config=config)


def noise(seconds, seed=0):
    rng = np.random.default_rng(seed)
    return (0.1 * rng.normal(size=round(seconds * 16000))).astype(np.float32)


def speech(seconds, seed=0):
    """Noise whose level changes every 100 ms."""
    samples = noise(seconds, seed)
    levels = np.random.default_rng(seed).uniform(0.01, 1.0, len(samples) // 1600 + 1)
    return samples * np.repeat(levels, 1600)[: len(samples)].astype(np.float32)


def cut(samples, count, seed=0):
    """Cuts samples at `count` random places."""
    cuts = np.random.default_rng(seed).integers(0, len(samples), count)
    return np.split(samples, np.sort(cuts))


def hypothesis(labels, times, durations):
    scores = np.log(np.linspace(0.5, 1, len(labels))).astype(np.float32)
    entropies = -scores
    return Hypothesis(
        np.array(labels), np.int32(len(labels)), np.array(times), np.array(durations), scores,
        entropies, np.int32(0),
    )  # fmt: skip


def spell(recogniser, *pieces):
    return [recogniser.tokenizer.pieces.index(piece) for piece in pieces]
