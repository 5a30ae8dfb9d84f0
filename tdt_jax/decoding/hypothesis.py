"""The result of a decoder, and the state that a decoder carries from chunk to chunk."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Hypothesis(NamedTuple):
    """What was heard in each utterance; of L, the first `num_labels` entries hold."""

    labels: jax.Array  # [B, L] int32
    num_labels: jax.Array  # [B] int32
    times: jax.Array  # [B, L] int32, frame of emission
    durations: jax.Array  # [B, L] int32, frames predicted with the label (RNN-T: 0)
    scores: jax.Array  # [B, L] float32, log-probability of the label under the token head
    entropies: jax.Array  # [B, L] float32, in nats, of the token head at the emission
    num_steps: jax.Array  # [B] int32, joint evaluations that the utterance needed (CTC: frames)


class DecoderState(NamedTuple):
    """What the decoder carries from the end of some frames to those that follow."""

    skip: jax.Array  # [B] int32, frames to jump over: where a duration reached beyond the end
    predictor: tuple  # the predictor's state
    projected: jax.Array  # [B, J] its projected output


def certainty(token_logits):
    """Log-probability of the best token, and the entropy of all: [..., V + 1] -> [...], [...]."""
    log_probs = jax.nn.log_softmax(token_logits.astype(jnp.float32), axis=-1)
    entropy = -jnp.sum(jnp.exp(log_probs) * jnp.maximum(log_probs, -1e30), axis=-1)
    return jnp.max(log_probs, axis=-1), entropy


def take(hypothesis: Hypothesis, row: int) -> Hypothesis:
    """One utterance of a batch's hypothesis, its arrays cut to the labels it has."""
    one = Hypothesis(*(np.asarray(field[row]) for field in hypothesis))
    return Hypothesis(*(field[: one.num_labels] if field.ndim else field for field in one))
