"""The CTC loss, from the logits of an encoder's CTC head."""

import jax
import jax.numpy as jnp
import optax


def ctc_loss(
    logits: jax.Array,
    num_frames: jax.Array,
    labels: jax.Array,
    num_labels: jax.Array,
    *,
    blank: int,
) -> jax.Array:
    """Returns the CTC loss of each utterance (Graves et al., 2006).

    Args:
      logits: [B, T, V+1].
      num_frames: [B] int, in [0, T].
      labels: [B, U] int; entries from `num_labels` on are ignored.
      num_labels: [B] int, in [0, U].
      blank: the index of blank.

    Returns:
      [B] float32, in nats; 0 where the labels do not fit into the frames.
    """
    losses = optax.ctc_loss(
        logits.astype(jnp.float32),
        _padding(num_frames, logits.shape[1]).astype(jnp.float32),
        labels,
        _padding(num_labels, labels.shape[1]).astype(jnp.float32),
        blank_id=blank,
    )
    return jnp.where(ctc_fits(num_frames, labels, num_labels), losses, 0.0)


def ctc_fits(num_frames: jax.Array, labels: jax.Array, num_labels: jax.Array) -> jax.Array:
    """Returns whether labels [B, U] fit into the frames: equal neighbors need a blank between."""
    padding = _padding(num_labels, labels.shape[1])
    repeats = jnp.sum((labels[:, 1:] == labels[:, :-1]) & ~padding[:, 1:], axis=1)
    return num_labels + repeats <= num_frames


def _padding(num_valid: jax.Array, size: int) -> jax.Array:
    """[B] -> [B, size] bool, True beyond the valid entries."""
    return jnp.arange(size)[None] >= num_valid[:, None]
