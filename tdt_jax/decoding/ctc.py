"""Greedy CTC decoding: the most probable token of each frame, repeats and blanks left out."""

import jax
import jax.numpy as jnp

from tdt_jax.decoding.hypothesis import Hypothesis, certainty


@jax.jit
def ctc_decode(model, frames, num_frames) -> Hypothesis:
    """The most probable label of every frame under the CTC head, repeats and blanks left out.

    Graves et al., 2006 ("best path decoding").

    Args:
      model: with `ctc`, a head [..., D] -> [..., V + 1], and `config`, as a `tdt_jax.Transducer`.
      frames: [B, T, D] from `encode`.
      num_frames: [B] int.

    Returns:
      a Hypothesis with room for L = T labels: a label's time is the first frame that says it, its
      duration the frames that say it, its score the log-probability at the first.

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
    logits = model.ctc(frames).astype(jnp.float32)
    score, entropy = certainty(logits)
    time = jnp.broadcast_to(jnp.arange(size), (batch, size))
    token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    token = jnp.where(time < num_frames[:, None], token, model.config.blank)
    before = jnp.pad(token, ((0, 0), (1, 0)), constant_values=model.config.blank)[:, :-1]
    says = token != model.config.blank
    emits = says & (token != before)
    number = jnp.cumsum(emits, axis=1)
    rows = jnp.arange(batch)[:, None]
    first = jnp.where(emits, number - 1, size)  # beyond the end: dropped
    every = jnp.where(says, number - 1, size)
    empty = jnp.zeros((batch, size), jnp.int32)

    def put(value):
        return empty.astype(value.dtype).at[rows, first].set(value, mode="drop")

    return Hypothesis(
        labels=put(token),
        num_labels=number[:, -1].astype(jnp.int32),
        times=put(time.astype(jnp.int32)),
        durations=empty.at[rows, every].add(1, mode="drop"),
        scores=put(score),
        entropies=put(entropy),
        num_steps=num_frames.astype(jnp.int32),
    )
