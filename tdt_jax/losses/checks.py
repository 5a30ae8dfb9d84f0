"""Checks of the arguments that all losses on the lattice share."""

import jax
import jax.numpy as jnp


def check_lengths(labels: jax.Array, num_frames: jax.Array, num_labels: jax.Array) -> None:
    """Raises ValueError, naming both sides, unless each row of labels has its two lengths."""
    for name, array in (("labels", labels), ("num_frames", num_frames), ("num_labels", num_labels)):
        if not hasattr(array, "dtype"):
            raise ValueError(f"{name} must be an array of integers, got a {type(array).__name__}")
        if not jnp.issubdtype(array.dtype, jnp.integer):
            raise ValueError(f"{name} must be an array of integers, got one of {array.dtype}")
    if labels.ndim != 2:
        raise ValueError(f"the loss needs labels [B, U], got {labels.shape}")
    if num_frames.shape != labels.shape[:1] or num_labels.shape != labels.shape[:1]:
        raise ValueError(
            f"the loss needs num_frames and num_labels of shape {labels.shape[:1]}, got "
            f"{num_frames.shape} and {num_labels.shape}"
        )
