"""What the benchmarks run on: sizes of models and batches, random weights and inputs."""

import concurrent.futures
import dataclasses
import os
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tdt_jax import presets
from tdt_jax.config import Bucket, JointConfig, ModelConfig
from tdt_jax.models.joint import Joint
from tdt_jax.models.transducer import Transducer, abstract_model
from tdt_jax.runtime.pytree import leaf_name

T = TypeVar("T")

DURATIONS = (0, 1, 2, 3, 4)
SIGMA = 0.02
MODELS: dict[str, ModelConfig] = {
    "110m": presets.PARAKEET_TDT_CTC_110M,
    "0.6b": presets.PARAKEET_TDT_0_6B_V3,
    "0.6b-v2": presets.PARAKEET_TDT_0_6B_V2,  # with a vocabulary of 1024
    "1.1b": presets.PARAKEET_TDT_1_1B,
    "rnnt-0.6b": presets.PARAKEET_RNNT_0_6B,
}


def _causal(config: ModelConfig, **changes) -> ModelConfig:
    """Returns the configuration of a cache-aware RNN-T, as NVIDIA's streaming models have it."""
    encoder = dataclasses.replace(
        config.encoder,
        chunked_contexts=((70, 13), (70, 6), (70, 1), (70, 0)),
        convolution_context=(config.encoder.kernel_size - 1, 0),
        causal_subsampling=True,
        convolution_norm="layer_norm",
    )
    features = dataclasses.replace(config.features, num_mels=128, normalize=(0.0, 1.0))
    changes = dict(durations=None, ctc=False, encoder=encoder, features=features, **changes)
    return dataclasses.replace(config, **changes)


CAUSAL_MODELS: dict[str, ModelConfig] = {
    "120m": _causal(presets.PARAKEET_TDT_CTC_110M, vocab_size=1026),  # as parakeet_realtime_eou
    "0.6b": _causal(presets.PARAKEET_TDT_0_6B_V2),  # as nemotron-speech-streaming
}


def choose(names: Sequence[str], cases: Mapping[str, T]) -> dict[str, T]:
    """Returns the cases of these names.

    Raises:
      ValueError: for a name that is none of the cases'.
    """
    if unknown := [name for name in names if name not in cases]:
        raise ValueError(f"no case {unknown[0]!r}; there are {', '.join(cases)}")
    return {name: cases[name] for name in names}


# The loss


class Case(NamedTuple):
    """Sizes of a batch: B utterances of T frames and U labels, V tokens, a joint J wide."""

    name: str
    batch: int
    frames: int
    labels: int
    vocab: int
    width: int = 640

    @property
    def num_outputs(self) -> int:
        """Token and duration logits of a node."""
        return self.vocab + 1 + len(DURATIONS)

    @property
    def num_logits(self) -> int:
        """Token and duration logits of all nodes."""
        return self.batch * self.frames * (self.labels + 1) * self.num_outputs

    @property
    def flops(self) -> int:
        """Returns the operations of the heads' products in an exact gradient over all nodes.

        These are the logits, the logits again (they cannot be kept), and the gradients of both
        factors.
        """
        return 4 * 2 * self.width * self.num_logits


CASES = {
    case.name: case
    for case in (
        Case("small", 4, 100, 25, 128),
        Case("v2", 8, 200, 50, 1024),  # Parakeet v2's vocabulary
        Case("v3", 2, 250, 100, 8192),  # Parakeet v3's, 20 seconds
        Case("long", 1, 1500, 500, 1024),  # two minutes
    )
}


def loss_inputs(case: Case) -> dict[str, np.ndarray]:
    """Returns frames, states, labels and weights of the joint network, always the same ones."""
    rng = np.random.default_rng(0)

    def normal(*shape, scale=1.0):
        return scale * rng.standard_normal(shape, dtype=np.float32)

    width, scale = case.width, case.width**-0.5
    return {
        "frames": normal(case.batch, case.frames, width),
        "states": normal(case.batch, case.labels + 1, width),
        "labels": rng.integers(0, case.vocab, (case.batch, case.labels)).astype(np.int32),
        "frame_projection": normal(width, width, scale=scale),
        "state_projection": normal(width, width, scale=scale),
        "token_head": normal(width, case.vocab + 1, scale=scale),
        "duration_head": normal(width, len(DURATIONS), scale=scale),
    }


def abstract_joint(case: Case, dtype: str) -> Joint:
    """Returns the shapes of a joint network's parameters."""
    return jax.eval_shape(
        lambda: Joint(
            JointConfig(width=case.width, dropout=0.0),
            frame_width=case.width,
            state_width=case.width,
            vocab_size=case.vocab,
            num_durations=len(DURATIONS),
            dtype=jnp.dtype(dtype),
            rngs=nnx.Rngs(0),
        )
    )


def make_joint(case: Case, dtype: str, inputs: Mapping[str, np.ndarray]) -> Joint:
    """Returns a joint network with the weights of `loss_inputs`, and biases of zero."""

    def fill(path, leaf):
        weights = inputs.get(leaf_name(path).removesuffix(".kernel"))
        return jnp.asarray(np.zeros(leaf.shape) if weights is None else weights, leaf.dtype)

    return jax.tree.map_with_path(fill, abstract_joint(case, dtype))


# The encoder


def random_model(config: ModelConfig, dtype: str) -> Transducer:
    """Returns a model with parameters of a dtype that are the same in every process.

    To draw 600 M of them takes a core 20 s: each core draws some of the arrays.
    """

    def fill(path, leaf):
        return jnp.asarray(random_parameter(leaf_name(path), leaf.shape), dtype)

    model = abstract_model(dataclasses.replace(config, dtype=dtype))
    shapes, structure = jax.tree.flatten_with_path(model)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return structure.unflatten(pool.map(fill, *zip(*shapes, strict=True)))


def random_parameter(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns normal values of a parameter, divided by the square root of its inputs."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    num_inputs = shape[-2] if len(shape) > 1 else 1
    return rng.standard_normal(shape, dtype=np.float32) / np.float32(num_inputs**0.5)


def num_features(seconds: float) -> int:
    """Returns the number of feature frames of so many seconds."""
    return round(seconds * 100)


def random_features(
    config: ModelConfig, seconds: float, batch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns features [B, M, F] of so many seconds each, and their lengths [B]."""
    shape = batch, num_features(seconds), config.features.num_mels
    features = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return features, np.full((batch,), shape[1], np.int32)


# Training


PRESETS: dict[str, ModelConfig] = {
    "micro": presets.MICRO,
    "tiny": presets.TINY,
    "small": presets.SMALL,
    "medium": presets.MEDIUM,
    "large": presets.LARGE,
    "xlarge": presets.XLARGE,
}


class Shape(NamedTuple):
    """The batch of each device."""

    seconds: float  # of each utterance
    tokens: int  # of each utterance
    rows: int


def parse_shape(text: str | None) -> Shape | None:
    """Returns SECONDS,TOKENS,ROWS as a Shape; None for None.

    Raises:
      ValueError: for any other text.
    """
    if text is None:
        return None
    try:
        seconds, tokens, rows = text.split(",")
        shape = Shape(float(seconds), int(tokens), int(rows))
    except ValueError:
        raise ValueError(f"a batch must be SECONDS,TOKENS,ROWS, got {text!r}") from None
    if min(shape) <= 0:
        raise ValueError(f"a batch needs positive SECONDS,TOKENS,ROWS, got {text!r}")
    return shape


def largest(buckets: tuple[Bucket, ...], num_devices: int) -> Shape:
    """Returns each device's part of a batch of the last bucket.

    Raises:
      ValueError: if the batch cannot be split evenly.
    """
    bucket = buckets[-1]
    if bucket.batch_size % num_devices:
        raise ValueError(
            f"a batch of {bucket.batch_size} cannot be split among {num_devices} devices; "
            "name another: SECONDS,TOKENS,ROWS of each device"
        )
    return Shape(bucket.seconds, bucket.tokens, bucket.batch_size // num_devices)
