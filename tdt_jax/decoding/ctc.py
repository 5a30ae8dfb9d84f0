"""Greedy CTC decoding: the best token of each frame, without repeats and blanks."""

from typing import Any

import jax
import jax.numpy as jnp

from tdt_jax.decoding.hypothesis import Hypothesis, score_and_entropy


@jax.jit
def ctc_decode(model: Any, frames: jax.Array, num_frames: jax.Array) -> Hypothesis:
    """Returns the best token of every frame under the CTC head, without repeats and blanks.

    Graves et al., 2006 ("best path decoding").

    Args:
      model: with `ctc`, a head [..., D] -> [..., V+1], and `config.blank`, as a
        `tdt_jax.Transducer`.
      frames: [B, T, D] from `encode`.
      num_frames: [B] int.

    Returns:
      a Hypothesis with room for L = T labels. A label's time is the first frame that emits it, its
      duration the number of frames that repeat it, its score the log-probability at the first.

    Raises:
      ValueError: if the model has no CTC head or the shapes don't fit.
    """
    if model.ctc is None:
        raise ValueError("ctc_decode needs a model with a CTC head (config.ctc), this one has none")
    if frames.ndim != 3 or frames.shape[1] == 0 or num_frames.shape != frames.shape[:1]:
        raise ValueError(
            "ctc_decode needs frames [B, T > 0, D] and num_frames [B], got "
            f"{frames.shape} and {num_frames.shape}"
        )
    batch, size = frames.shape[:2]
    blank = model.config.blank
    logits = model.ctc(frames).astype(jnp.float32)
    score, entropy = score_and_entropy(logits)
    time = jnp.broadcast_to(jnp.arange(size), (batch, size))
    token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    token = jnp.where(time < num_frames[:, None], token, blank)
    previous = jnp.pad(token, ((0, 0), (1, 0)), constant_values=blank)[:, :-1]
    is_label = token != blank
    is_first = is_label & (token != previous)
    count = jnp.cumsum(is_first, axis=1)
    rows = jnp.arange(batch)[:, None]
    # The entry of the hypothesis that a frame belongs to; `size` is beyond the last, and dropped.
    entry = jnp.where(is_label, count - 1, size)
    entry_of_first = jnp.where(is_first, count - 1, size)
    empty = jnp.zeros((batch, size), jnp.int32)

    def at_first(value):
        return empty.astype(value.dtype).at[rows, entry_of_first].set(value, mode="drop")

    return Hypothesis(
        labels=at_first(token),
        num_labels=count[:, -1].astype(jnp.int32),
        times=at_first(time.astype(jnp.int32)),
        durations=empty.at[rows, entry].add(1, mode="drop"),
        scores=at_first(score),
        entropies=at_first(entropy),
        num_steps=num_frames.astype(jnp.int32),
    )
