"""The result of a decoder, and the state that a decoder carries from chunk to chunk."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray


class Hypothesis(NamedTuple):
    """The labels emitted for each utterance; the first `num_labels` of L entries are valid."""

    labels: Array  # [B, L] int32
    num_labels: Array  # [B] int32
    times: Array  # [B, L] int32, frame of emission
    durations: Array  # [B, L] int32, frames predicted with the label (RNN-T: 0)
    scores: Array  # [B, L] float32, log-probability of the label under the token head
    entropies: Array  # [B, L] float32, in nats, of the token head at the emission
    num_steps: Array  # [B] int32, joint evaluations that the utterance needed (CTC: frames)


class DecoderState(NamedTuple):
    """What a decoder carries from the end of some frames to the frames that follow."""

    skip: jax.Array  # [B] int32, frames to skip: how far the last duration reached beyond
    predictor: tuple  # the predictor's state
    projected: jax.Array  # [B, J] its projected output
    advice: tuple[jax.Array, ...] = ()  # [B] each: the states of the advice, if there is any

    def restart(self, rows: jax.Array, start: "DecoderState") -> "DecoderState":
        """Returns the state with a new utterance in the rows where `rows` [B] is True.

        `start` is the state of `start_decoding`, of one row or of B (of B if there is advice).
        """
        predictor = jax.tree.map(
            lambda *both: select_rows(rows, *both, axis=1), start.predictor, self.predictor
        )
        skip = select_rows(rows, start.skip, self.skip, axis=0)
        projected = select_rows(rows, start.projected, self.projected, axis=0)
        advice = jax.tree.map(
            lambda *both: select_rows(rows, *both, axis=0), start.advice, self.advice
        )
        return DecoderState(skip, predictor, projected, advice)


def select_rows(rows: jax.Array, new: jax.Array, old: jax.Array, *, axis: int) -> jax.Array:
    """Returns `new` where `rows` [B] is True and `old` elsewhere; B is at `axis` of `old`."""
    shape = [1] * old.ndim
    shape[axis] = rows.shape[0]
    return jnp.where(rows.reshape(shape), new, old)


def take(hypothesis: Hypothesis, row: int) -> Hypothesis:
    """Returns the hypothesis of one utterance of a batch, its arrays cut to its labels."""
    one = Hypothesis(*(np.asarray(field[row]) for field in hypothesis))
    return Hypothesis(*(field[: one.num_labels] if field.ndim else field for field in one))


def score_and_entropy(
    token_logits: jax.Array, token: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Returns a token's log-probability [...] and the entropy [...] of logits [..., V+1].

    The token [...] is the best if None is given.
    """
    log_probs = jax.nn.log_softmax(token_logits.astype(jnp.float32), axis=-1)
    entropy = -jnp.sum(jnp.exp(log_probs) * jnp.maximum(log_probs, -1e30), axis=-1)
    if token is None:
        return jnp.max(log_probs, axis=-1), entropy
    return jnp.take_along_axis(log_probs, token[..., None], axis=-1)[..., 0], entropy
