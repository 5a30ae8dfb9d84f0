"""Small parts that the networks share: masks, dropout, keys, norms."""

import jax
import jax.numpy as jnp
from flax import nnx


def padding_mask(lengths, size: int):
    """[B] lengths -> [B, size] bool, True on padding."""
    return jnp.arange(size)[None, :] >= lengths[:, None]


def dropout(x, rate: float, key):
    """Zero a share `rate` of x (to 1/256) and scale the rest up; as it is when `key` is None.

    Eight random bits decide on a number: on CPU drawing 32 of them costs more than a small layer.
    """
    dropped = min(round(rate * 256), 255)
    if key is None or dropped == 0:
        return x
    keep = jax.random.bits(key, x.shape, jnp.uint8) >= dropped
    return jnp.where(keep, x * (256 / (256 - dropped)), jnp.zeros_like(x))


def split(key, num: int):
    """`num` keys from one, or as many Nones from None."""
    return [None] * num if key is None else list(jax.random.split(key, num))


def layer_norm(width: int, *, dtype, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm over [..., D], its variance taken about the mean (the short cut loses digits)."""
    return nnx.LayerNorm(width, epsilon=1e-5, use_fast_variance=False, dtype=dtype, rngs=rngs)
