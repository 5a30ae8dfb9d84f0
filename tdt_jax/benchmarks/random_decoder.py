"""A decoder of random weights that emits as many labels as a trained one.

Everything is a function of the configuration and a bias, so processes need not exchange weights.
"""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from tdt_jax.config import ModelConfig
from tdt_jax.decoding.greedy import greedy_decode
from tdt_jax.models.transducer import Transducer, abstract_model
from tdt_jax.runtime.pytree import from_named_leaves, named_leaves

LABELS_PER_SECOND = 3.5  # of English speech with a vocabulary of a few thousand, about
SCALE = 4.0  # times 1 / sqrt(inputs): logits far apart, and labels that change what follows
RARE = -4.0  # bias of the shortest duration: with 0, an utterance stays at a frame for good


class IterationBytes(NamedTuple):
    """Bytes of parameters that an iteration of the decoder's loop reads.

    The embedding, of which it reads one row, and the projection of the frames, which runs once
    before the loop, are left out.
    """

    heads: int  # in every iteration
    predictor: int  # where a label is emitted: the LSTMs and the projection of their output


def decoder_only(config: ModelConfig) -> ModelConfig:
    """Returns the configuration with the smallest encoder of the same width, which is never run."""
    encoder = dataclasses.replace(
        config.encoder, num_layers=1, feed_forward_factor=1, subsampling_channels=1, unroll=1
    )
    return dataclasses.replace(config, encoder=encoder, ctc=False)


def make_model(config: ModelConfig, blank_bias: float) -> Transducer:
    """Returns a model of numpy arrays that are always the same. The encoder's are zero."""
    abstract, rng, leaves = abstract_model(config), np.random.default_rng(0), {}
    for name, leaf in named_leaves(abstract).items():
        leaves[name] = np.zeros(leaf.shape, np.float32)
        if name.startswith(("predictor.", "joint.")):
            kind = name.rpartition(".")[2]
            scale = {"kernel": leaf.shape[0] ** -0.5, "bias": 0.1}.get(kind, 1.0)
            leaves[name] = np.float32(scale) * rng.standard_normal(leaf.shape, dtype=np.float32)
    for name in ("state_projection", "token_head", "duration_head"):
        if f"joint.{name}.kernel" in leaves:
            leaves[f"joint.{name}.kernel"] *= SCALE
    leaves["joint.token_head.bias"][-1] = blank_bias
    if config.durations is not None:
        leaves["joint.duration_head.bias"][0] = RARE
    return from_named_leaves(leaves, abstract)


def make_frames(config: ModelConfig, batch: int, num_frames: int) -> np.ndarray:
    """Returns random frames [B, T, D]; the first rows are those of a smaller batch."""
    shape = batch, num_frames, config.encoder.width
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def iteration_bytes(model: Transducer) -> IterationBytes:
    """Returns the bytes that an iteration reads.

    Raises:
      ValueError: for a CTC model.
    """

    def size(*parts) -> int:
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(parts))

    joint, predictor = model.joint, model.predictor
    if joint is None or predictor is None:
        raise ValueError("a CTC model has no decoder whose loop reads parameters")
    return IterationBytes(
        heads=size(joint.token_head, joint.duration_head),
        predictor=size(predictor.layers, joint.state_projection),
    )


def find_blank_bias(config: ModelConfig, num_frames: int) -> float:
    """Returns blank's bias with which four utterances emit LABELS_PER_SECOND, by bisection."""
    frames = jax.device_put(make_frames(config, 4, num_frames))
    model = jax.device_put(make_model(config, 0.0))
    return balance_blanks(model, frames, np.full((4,), num_frames, np.int32))


def balance_blanks(model: Transducer, frames: jax.Array, num_frames: np.ndarray) -> float:
    """Sets and returns blank's bias with which frames [B, T, D], [B] emit LABELS_PER_SECOND."""
    assert model.joint is not None
    config, bias = model.config, model.joint.token_head.bias
    wanted = LABELS_PER_SECOND * num_frames.sum() * config.seconds_per_frame
    low, high, middle = -20.0, 60.0, 0.0
    for _ in range(14):
        middle = (low + high) / 2
        bias[...] = bias[...].at[-1].set(middle)
        result = greedy_decode(model, frames, num_frames, max_symbols=config.max_symbols)
        too_many = int(result.num_labels.sum()) > wanted
        low, high = (middle, high) if too_many else (low, middle)
    return middle
