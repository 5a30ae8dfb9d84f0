"""The transducer: encoder, predictor and joint, and an optional CTC head."""

import jax
import jax.numpy as jnp
from flax import nnx

from tdt_jax.config import ModelConfig
from tdt_jax.encoder import Encoder
from tdt_jax.joint import Joint
from tdt_jax.predictor import Predictor


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
