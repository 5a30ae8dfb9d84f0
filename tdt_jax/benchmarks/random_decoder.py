"""A decoder of random weights that says as much as a trained one, for this package and its peer.

Everything is a function of the configuration and a bias: processes need not hand weights over.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from tdt_jax.benchmarks.encoder import make_peer
from tdt_jax.config import ModelConfig

LABELS_PER_SECOND = 3.5  # what English speech takes of a few thousand pieces, about
SCALE = 4.0  # times 1 / sqrt(inputs): logits far apart, and labels that change what follows
RARE = -4.0  # bias of the shortest duration: else an utterance stays where it has been once


class Weights(NamedTuple):
    """Bytes of the decoder's parameters that a turn of the loop reads.

    The embedding, of which it reads a row, and the projection of the frames, done once, are out.
    """

    heads: int  # at every turn
    predictor: int  # where a label is emitted: the LSTMs and the projection of their output


def decoder_only(config: ModelConfig) -> ModelConfig:
    """The same decoder behind the smallest encoder of the same width, which nobody runs."""
    encoder = dataclasses.replace(
        config.encoder, num_layers=1, feed_forward_factor=1, subsampling_channels=1, unroll=1
    )
    return dataclasses.replace(config, encoder=encoder, ctc=False)


def make_model(config: ModelConfig, blank_bias: float):
    """A model of numpy arrays, always the same but for blank's bias. The encoder's are zero."""
    from tdt_jax.models.transducer import abstract_model
    from tdt_jax.runtime.pytree import from_named_leaves, named_leaves

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
    """[B, T, D], normal; the first rows are those of a smaller batch."""
    shape = batch, num_frames, config.encoder.width
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def weights(model) -> Weights:
    """The bytes that a turn reads."""
    import jax

    def size(*parts) -> int:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(parts))

    joint = model.joint
    return Weights(
        heads=size(joint.token_head, joint.duration_head),
        predictor=size(model.predictor.layers, joint.state_projection),
    )


def find_blank_bias(config: ModelConfig, num_frames: int) -> float:
    """Blank's bias with which four utterances say LABELS_PER_SECOND, by bisection."""
    import jax

    from tdt_jax.decoding.greedy import greedy_decode

    frames = jax.device_put(make_frames(config, 4, num_frames))
    lengths = np.full((4,), num_frames, np.int32)
    model = jax.device_put(make_model(config, 0.0))
    bias = model.joint.token_head.bias
    wanted = LABELS_PER_SECOND * 4 * num_frames * config.seconds_per_frame
    low, high = -20.0, 60.0
    for _ in range(14):
        middle = (low + high) / 2
        bias[...] = bias[...].at[-1].set(middle)
        found = greedy_decode(model, frames, lengths, max_symbols=config.max_symbols)
        says_more = int(found.num_labels.sum()) > wanted
        low, high = (middle, high) if says_more else (low, middle)
    return middle


# transformers'


def make_decoder_peer(config: ModelConfig, blank_bias: float):
    """transformers' model with the decoder of `make_model`."""
    import torch

    from tdt_jax.checkpoints.parakeet import convert, tables

    peer = make_peer(config)
    tensors = convert.disassemble(
        make_model(config, blank_bias), tensor_name=tables.hugging_face_name
    )
    decoder = {
        name: torch.from_numpy(array)
        for name, array in tensors.items()
        if name.startswith(("decoder.", "joint.", "encoder_projector."))
    }
    peer.load_state_dict({**peer.state_dict(), **decoder})
    return peer


def generate_function(peer, frames, config: ModelConfig):
    """A function that runs the peer's generate() on frames [B, T, D] in place of its encoder's.

    It projects them each time, as `greedy_decode` does.
    """
    import torch
    from transformers.models.parakeet.modeling_parakeet import ParakeetEncoderModelOutput

    batch, num_frames = frames.shape[:2]
    mask = torch.ones(batch, num_frames, dtype=torch.bool)

    def encoded(**_):
        return ParakeetEncoderModelOutput(
            last_hidden_state=frames,
            pooler_output=peer.encoder_projector(frames),
            attention_mask=mask,
        )

    peer.get_audio_features = encoded
    first = config.blank + 1
    durations = list(range(first, first + len(config.durations or ())))
    options = dict(
        input_features=torch.zeros(batch, 8 * num_frames, config.features.num_mels),
        attention_mask=torch.ones(batch, 8 * num_frames, dtype=torch.bool),
        decoder_start_token_id=config.blank,
        max_new_tokens=config.max_symbols * num_frames,
        **({"suppress_tokens": durations} if durations else {}),
    )
    return lambda: peer.generate(**options)


def cut(tokens, durations, blank: int, num_frames: int) -> tuple[np.ndarray, ...]:
    """Labels, times and durations of an utterance's steps [S], up to the end of its frames.

    generate() goes on for rows that have ended until the last has.
    """
    tokens = tokens[: len(durations)]
    times = np.cumsum(durations) - durations
    said = (tokens != blank) & (times < num_frames)
    return tokens[said], times[said], durations[said]
