"""Small parts that several networks use: masks, rows, dropout, norms, initial weights."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from tdt_jax.runtime import backend


def padding_mask(lengths: jax.Array, size: int) -> jax.Array:
    """Returns the mask [B, size] of utterances of `lengths` [B], True on padding."""
    return jnp.arange(size)[None, :] >= lengths[:, None]


def mask_time(x: jax.Array, lengths: jax.Array, start: jax.Array | int = 0) -> jax.Array:
    """Zeroes x [B, M, ...], whose first frame has the index `start`, outside 0..length - 1.

    `start` is [] or [B].
    """
    time = jnp.reshape(start, (-1, 1)) + jnp.arange(x.shape[1])[None, :]
    padding = (time < 0) | (time >= lengths[:, None])
    return jnp.where(jnp.expand_dims(padding, range(2, x.ndim)), jnp.zeros_like(x), x)


def select_rows(rows: jax.Array, new: jax.Array, old: jax.Array, *, axis: int) -> jax.Array:
    """Returns `new` where `rows` [B] is True and `old` elsewhere; B is at `axis` of both."""
    shape = [1] * new.ndim
    shape[axis] = rows.shape[0]
    return jnp.where(rows.reshape(shape), new, old)


def insert(array: jax.Array, position: jax.Array, values: jax.Array, count: jax.Array) -> jax.Array:
    """Returns array [B, M, ...] with the first `count` [B] values [B, N, ...] at `position` [B].

    What was there is replaced; the array becomes longer by N.
    """
    size, rest = array.shape[1], [(0, 0)] * (array.ndim - 2)
    values = jnp.pad(values.astype(array.dtype), [(0, 0), (0, size), *rest])
    array = jnp.pad(array, [(0, 0), (0, values.shape[1] - size), *rest])
    index = jnp.arange(array.shape[1])[None, :] - position[:, None]
    is_new = (index >= 0) & (index < count[:, None])
    index, is_new = (jnp.expand_dims(x, range(2, array.ndim)) for x in (index.clip(0), is_new))
    return jnp.where(is_new, jnp.take_along_axis(values, index, axis=1), array)


def in_precision(method: Callable) -> Callable:
    """Returns a method of a module whose float32 products are as exact as `config.precision` says.

    In a context that sets `jax.default_matmul_precision`, "default" is what that says.
    """

    @functools.wraps(method)
    def run(self, *arguments, **options):
        if self.config.precision == "default":
            return method(self, *arguments, **options)
        with jax.default_matmul_precision(self.config.precision):
            return method(self, *arguments, **options)

    return run


def split_key(key: jax.Array | None, num: int) -> list:
    """Returns `num` keys, or `num` Nones if `key` is None."""
    return [None] * num if key is None else list(jax.random.split(key, num))


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zeroes each element of x with probability `rate` and scales the rest by 1 / (1 - rate).

    Returns x unchanged if `key` is None. The rate is rounded to a multiple of 1/256.

    Args:
      x: [B, ...].
      rate: in [0, 1).
      key: one PRNG key for all of x, or keys [n], each for B / n rows of it.
    """
    threshold = dropout_threshold(rate)
    if key is None or threshold == 0:
        return x
    random_bytes = packed_bytes if backend.current() == "cpu" else hashed_bytes
    if key.ndim:
        shape = len(x) // len(key), *x.shape[1:]
        drawn = jax.vmap(lambda key: random_bytes(key, shape))(key).reshape(x.shape)
    else:
        drawn = random_bytes(key, x.shape)
    return jnp.where(drawn >= threshold, x * (256 / (256 - threshold)), jnp.zeros_like(x))


def dropout_threshold(rate: float) -> int:
    """Returns the number of the 256 values of a byte at which dropout drops an element."""
    return min(round(rate * 256), 255)


def packed_bytes(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns random integers from 0 to 255, made of four times fewer random words.

    `jax.random.bits` spends a word of 32 bits on each integer, however small.
    """
    *rest, size = shape
    words = jax.random.bits(key, (*rest, -(-size // 4)), jnp.uint32)
    quarters = [(words >> shift) & 255 for shift in (0, 8, 16, 24)]
    return jnp.concatenate(quarters, axis=-1)[..., :size]


def hashed_bytes(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns random integers from 0 to 255, each a hash of the key and the element's index.

    For accelerators: on a TPU JAX's generator (Threefry) would cost more than the matrix products,
    on a GPU it takes several kernels, and the numbers do not depend on how the array is split among
    devices. The hash is the finalizer of MurmurHash3 (Appleby, 2011), with a word of the key before
    each multiplication.
    """
    index = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        step = jnp.uint32(stride % 2**32)
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * step
        stride *= shape[axis]
    return hashed(index, *hash_words(key))


def hash_words(key: jax.Array) -> jax.Array:
    """Returns the two words [2] of a key with which `hashed` hashes."""
    return jax.random.bits(key, (2,))


def hashed(index: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns the random integer from 0 to 255 of each index (uint32), as `hashed_bytes` does."""
    word = index ^ first
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B) ^ second
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word >> 24


def uniform_weights(rngs: nnx.Rngs, shape: tuple[int, ...], fan_in: int) -> jax.Array:
    """Returns initial weights, uniform between -1 / sqrt(fan_in) and 1 / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)


class LayerNorm(nnx.LayerNorm):
    """Computes (x - mean) / sqrt(variance + 1e-5) * scale + bias over D (Ba et al., 2016).

    Computes in float32 whatever the dtype of x, and the variance from the centered x.
    """

    scale: nnx.Param
    bias: nnx.Param

    def __init__(self, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        super().__init__(width, epsilon=1e-5, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, T, D] -> [B, T, D]."""
        x = x.astype(jnp.float32)
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        factor = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.epsilon)
        scale, bias = self.scale[...].astype(jnp.float32), self.bias[...].astype(jnp.float32)
        return (x * (factor * scale[None, None]) + bias[None, None]).astype(self.dtype)


class Affine(nnx.Module):
    """Computes x * scale + bias: a BatchNorm (Ioffe & Szegedy, 2015) with folded statistics."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones((width,)))
        self.bias = nnx.Param(jnp.zeros((width,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, T, D] -> [B, T, D]."""
        scale, bias = self.scale[...].astype(x.dtype), self.bias[...].astype(x.dtype)
        return x * scale[None, None] + bias[None, None]
