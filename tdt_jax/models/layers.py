"""Small parts that the networks share: masks, dropout, keys, norms."""

import jax
import jax.numpy as jnp
from flax import nnx

from tdt_jax.runtime import backend


def padding_mask(lengths, size: int):
    """[B] lengths -> [B, size] bool, True on padding."""
    return jnp.arange(size)[None, :] >= lengths[:, None]


def dropout(x, rate: float, key):
    """Zero a share `rate` of x (to 1/256) and scale the rest up; as it is when `key` is None.

    Keys [n] draw for an n-th of the rows of x each.
    """
    dropped = min(round(rate * 256), 255)
    if key is None or dropped == 0:
        return x
    draw = hashed_bytes if backend.current() == "tpu" else packed_bytes
    if key.ndim:
        part = len(x) // len(key), *x.shape[1:]
        drawn = jax.vmap(lambda key: draw(key, part))(key).reshape(x.shape)
    else:
        drawn = draw(key, x.shape)
    return jnp.where(drawn >= dropped, x * (256 / (256 - dropped)), jnp.zeros_like(x))


def packed_bytes(key, shape: tuple[int, ...]):
    """Random integers 0 to 255, four of each random word: jax spends a whole word on each."""
    *rest, size = shape
    words = jax.random.bits(key, (*rest, -(-size // 4)), jnp.uint32)
    quarters = [(words >> shift) & 255 for shift in (0, 8, 16, 24)]
    return jnp.concatenate(quarters, axis=-1)[..., :size]


def hashed_bytes(key, shape: tuple[int, ...]):
    """Random integers 0 to 255 from an element's place, however the array is split among devices.

    For TPUs, where jax's generator (Threefry) would cost more than the products: the mixing of
    MurmurHash3 (Appleby, 2011) with a word of the key before each multiplication.
    """
    before, between = jax.random.bits(key, (2,))
    place = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        step = jnp.uint32(stride % 2**32)
        place += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * step
        stride *= shape[axis]
    word = place ^ before
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B) ^ between
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word >> 24


def split(key, num: int):
    """`num` keys from one, or as many Nones from None."""
    return [None] * num if key is None else list(jax.random.split(key, num))


class LayerNorm(nnx.LayerNorm):
    """(x - mean) / sqrt(variance + 1e-5) * scale + bias over D (Ba et al., 2016).

    In float32 whatever the dtype of the parameters, the variance taken about the mean.
    """

    def __init__(self, width: int, *, dtype, rngs: nnx.Rngs):
        super().__init__(width, epsilon=1e-5, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        """[B, T, D] -> [B, T, D]."""
        x = x.astype(jnp.float32)
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        factor = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.epsilon)
        scale, bias = self.scale[...].astype(jnp.float32), self.bias[...].astype(jnp.float32)
        return (x * (factor * scale[None, None]) + bias[None, None]).astype(self.dtype)


class Affine(nnx.Module):
    """x scale + bias: a BatchNorm (Ioffe & Szegedy, 2015) with its statistics folded in."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones((width,)))
        self.bias = nnx.Param(jnp.zeros((width,)))

    def __call__(self, x):
        """[B, T, D] -> [B, T, D]."""
        scale, bias = self.scale[...].astype(x.dtype), self.bias[...].astype(x.dtype)
        return x * scale[None, None] + bias[None, None]
