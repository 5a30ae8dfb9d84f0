"""A Conformer block (Gulati et al., 2020), over whole utterances or the next chunk of streams."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from tdt_jax.config import EncoderConfig
from tdt_jax.models.attention import AttentionCache, AttentionMask, RelativeAttention
from tdt_jax.models.depthwise import depthwise
from tdt_jax.models.layers import (
    Affine,
    LayerNorm,
    dropout,
    mask_time,
    split_key,
    uniform_weights,
)


class BlockCache(NamedTuple):
    """What a block needs of the frames before a chunk."""

    attention: AttentionCache
    convolution: jax.Array  # [B, k - 1, D], the inputs of the depthwise convolution


class Block(nnx.Module):
    """One Conformer block (Gulati et al., 2020): feed-forwards around attention and convolution."""

    def __init__(self, config: EncoderConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        norm = functools.partial(LayerNorm, config.width, dtype=dtype, rngs=rngs)
        self.feed_forward1_norm = norm()
        self.feed_forward1 = FeedForward(config, dtype=dtype, rngs=rngs)
        self.attention_norm = norm()
        self.attention = RelativeAttention(config, dtype=dtype, rngs=rngs)
        self.convolution_norm = norm()
        self.convolution = Convolution(config, dtype=dtype, rngs=rngs)
        self.feed_forward2_norm = norm()
        self.feed_forward2 = FeedForward(config, dtype=dtype, rngs=rngs)
        self.output_norm = norm()
        self.dropout = config.dropout

    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        padding: jax.Array,
        *,
        mask: AttentionMask | None = None,
        key: jax.Array | None = None,
        mesh: Mesh | None = None,
    ) -> jax.Array:
        """x [B, T, D], padding [B, T] -> [B, T, D]; arguments as of `RelativeAttention`."""
        keys = split_key(key, 7)
        attention_key = keys.pop(2)

        def attend(x):
            return self.attention(
                x, positions, padding, mask=mask, key=attention_key, mesh=mesh
            ), None

        def convolve(x):
            return self.convolution(x, padding), None

        return self._apply(x, attend, convolve, keys)[0]

    def step(
        self,
        x: jax.Array,
        cache: BlockCache,
        positions: jax.Array,
        first: jax.Array,
        padding: jax.Array,
    ) -> tuple[jax.Array, BlockCache]:
        """Returns the output for the next chunk of a stream, [B, C, D], and the cache after it.

        Args:
          x: [B, C, D].
          cache: of the frames before it.
          positions: [R, H, K], as `RelativeAttention.project` returns them.
          first: [B] frames of the stream before it.
          padding: [B, C] bool, True on padding.
        """

        def attend(x):
            return self.attention.step(x, cache.attention, positions, first, padding)

        def convolve(x):
            return self.convolution.step(x, cache.convolution, first, padding)

        x, *caches = self._apply(x, attend, convolve, [None] * 6)
        return x, BlockCache._make(caches)

    def _apply(self, x, attend, convolve, keys):
        """Returns the output, and what `attend` and `convolve` return beside theirs."""
        y = self.feed_forward1(self.feed_forward1_norm(x), key=keys[0])
        x = x + 0.5 * dropout(y, self.dropout, keys[1])
        y, attention_cache = attend(self.attention_norm(x))
        x = x + dropout(y, self.dropout, keys[2])
        y, convolution_cache = convolve(self.convolution_norm(x))
        x = x + dropout(y, self.dropout, keys[3])
        y = self.feed_forward2(self.feed_forward2_norm(x), key=keys[4])
        x = x + 0.5 * dropout(y, self.dropout, keys[5])
        return self.output_norm(x), attention_cache, convolution_cache


class FeedForward(nnx.Module):
    """Linear, SiLU, dropout, linear."""

    def __init__(self, config: EncoderConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        linear = functools.partial(nnx.Linear, use_bias=config.use_bias, dtype=dtype, rngs=rngs)
        hidden = config.feed_forward_factor * config.width
        self.linear1 = linear(config.width, hidden)
        self.linear2 = linear(hidden, config.width)
        self.dropout = config.dropout

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """[B, T, D] -> [B, T, D]. A `key` turns dropout on."""
        return self.linear2(dropout(jax.nn.silu(self.linear1(x)), self.dropout, key))


class Convolution(nnx.Module):
    """Pointwise, GLU, depthwise along time, LayerNorm (or affine), SiLU, pointwise."""

    def __init__(self, config: EncoderConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        width = config.width
        linear = functools.partial(nnx.Linear, use_bias=config.use_bias, dtype=dtype, rngs=rngs)
        self.pointwise1 = linear(width, 2 * width)
        self.depthwise = nnx.Param(
            uniform_weights(rngs, (config.kernel_size, width), config.kernel_size)
        )
        self.depthwise_bias = nnx.Param(jnp.zeros((width,))) if config.use_bias else None
        is_affine = config.convolution_norm == "affine"
        self.norm = Affine(width) if is_affine else LayerNorm(width, dtype=dtype, rngs=rngs)
        self.pointwise2 = linear(width, width)
        self.sides = config.convolution_sides
        self.dtype = dtype

    def __call__(self, x: jax.Array, padding: jax.Array) -> jax.Array:
        """[B, T, D], padding [B, T] -> [B, T, D]."""
        x = jnp.pad(self._gated(x, padding), ((0, 0), self.sides, (0, 0)))
        return self._mixed(x)

    def step(
        self, x: jax.Array, history: jax.Array, first: jax.Array, padding: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the output for the next chunk of a stream, [B, C, D], and the history after it.

        Args:
          x: [B, C, D].
          history: [B, k - 1, D], inputs of the depthwise convolution before the chunk.
          first: [B] frames of the stream before the chunk.
          padding: [B, C] bool, True on padding.
        """
        size = history.shape[1]
        history = mask_time(history, first, first - size)
        x = jnp.concatenate([history, self._gated(x, padding)], axis=1)
        return self._mixed(x), x[:, x.shape[1] - size :]

    def _gated(self, x, padding):
        x = jax.nn.glu(self.pointwise1(x))
        return jnp.where(padding[:, :, None], jnp.zeros_like(x), x)

    def _mixed(self, x):
        x = depthwise(x, self.depthwise[...].astype(self.dtype))
        if self.depthwise_bias is not None:
            x = x + self.depthwise_bias[...].astype(self.dtype)[None, None]
        return self.pointwise2(jax.nn.silu(self.norm(x)))
