"""The FastConformer encoder (Rekesh et al., 2023, arXiv 2305.05084).

    features [B, M, F] -> Subsampling (8x) -> L x Block -> frames [B, T, D]

    Block: x + 1/2 FeedForward, x + RelativeAttention, x + Convolution, x + 1/2 FeedForward, norm

Padding never changes a result: time is masked before every convolution and in every attention.
"""

import functools
import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from tdt_jax.config import EncoderConfig
from tdt_jax.models.attention import RelativeAttention, position_encoding, visible_context
from tdt_jax.models.depthwise import depthwise, depthwise_stride2
from tdt_jax.models.layers import Affine, LayerNorm, dropout, padding_mask, split_key

MAX_FEATURES = 8192  # feature frames that are subsampled at once

Length = TypeVar("Length", int, jax.Array)


def subsampled_length(num_features: Length) -> Length:
    """Returns the encoder frames T of `num_features` feature frames: an eighth, rounded up."""
    for _ in range(3):
        num_features = (num_features - 1) // 2 + 1
    return num_features


class Encoder(nnx.Module):
    """Subsampling and a stack of blocks, whose parameters are stacked: [L, ...]."""

    def __init__(self, config: EncoderConfig, num_mels: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.subsampling = Subsampling(config, num_mels, dtype=dtype, rngs=rngs)
        keys = jax.random.split(rngs.params(), config.num_layers)
        self.blocks = jax.vmap(lambda key: Block(config, dtype=dtype, rngs=nnx.Rngs(key)))(keys)
        self.config = config
        self.dtype = dtype

    def __call__(
        self,
        features: jax.Array,
        num_features: jax.Array,
        *,
        key: jax.Array | None = None,
        prepare: Callable = lambda x, block: (x, block),
    ) -> tuple[jax.Array, jax.Array]:
        """Encodes features [B, M, F] of lengths [B]. Returns frames [B, T, D] of lengths [B].

        Frames beyond an utterance's length are zero.

        Args:
          features: [B, M, F].
          num_features: [B] int.
          key: turns dropout on.
          prepare: called with the input and the parameters of each block; returns both as the
            block uses them. A training step places and gathers what is split among devices in it.
        """
        input_key, block_key = split_key(key, 2)
        x, num_frames = self.subsampling(features, num_features)
        if self.config.scale_input:
            x = x * math.sqrt(self.config.width)
        x = dropout(x, self.config.dropout, input_key)
        left, right = visible_context(self.config.attention_context, x.shape[1])
        positions = position_encoding(left, -right, self.config.width).astype(self.dtype)
        padding = padding_mask(num_frames, x.shape[1])

        def apply(x, layer):
            block, key = layer
            x, block = prepare(x, block)
            return block(x, positions, padding, key=key), None

        keys = None if key is None else jax.random.split(block_key, self.config.num_layers)
        policy = getattr(jax.checkpoint_policies, self.config.remat_policy)
        body = jax.checkpoint(apply, policy=policy) if self.config.remat else apply
        x, _ = jax.lax.scan(body, x, (self.blocks, keys), unroll=self.config.unroll)
        return _mask_time(x, num_frames), num_frames


class Subsampling(nnx.Module):
    """Depthwise-separable convolutions that turn 8 feature frames into one encoder frame.

    conv 3x3 stride 2, ReLU; twice: depthwise 3x3 stride 2, pointwise, ReLU; linear. The flattening
    before the linear layer is channel-major, C x F/8.
    """

    def __init__(self, config: EncoderConfig, num_mels: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        channels = config.subsampling_channels
        linear = functools.partial(nnx.Linear, dtype=dtype, rngs=rngs)
        self.convolution = nnx.Conv(
            1, channels, (3, 3), strides=2, padding=1, dtype=dtype, rngs=rngs
        )
        self.depthwise1 = nnx.Param(_uniform(rngs, (3, 3, channels), 9))
        self.depthwise1_bias = nnx.Param(jnp.zeros((channels,)))
        self.pointwise1 = linear(channels, channels)
        self.depthwise2 = nnx.Param(_uniform(rngs, (3, 3, channels), 9))
        self.depthwise2_bias = nnx.Param(jnp.zeros((channels,)))
        self.pointwise2 = linear(channels, channels)
        self.output = linear(channels * subsampled_length(num_mels), config.width)
        self.dtype = dtype

    def __call__(self, features: jax.Array, num_features: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, M, F], [B] -> [B, T, D], [B]; processes long features in parts, to save memory."""
        num_frames = subsampled_length(num_features)
        size, total = features.shape[1], subsampled_length(features.shape[1])
        if size <= MAX_FEATURES + 8:
            return self._frames(features, num_features, 0), num_frames
        num_parts = -(-size // MAX_FEATURES)
        # Frame t depends on the features 8t - 7 to 8t + 7: a part starts 8 features early.
        features = jnp.pad(features, ((0, 0), (8, num_parts * MAX_FEATURES - size), (0, 0)))

        def part(index):
            start = index * MAX_FEATURES
            part = jax.lax.dynamic_slice_in_dim(features, start, MAX_FEATURES + 8, axis=1)
            return self._frames(part, num_features, start - 8)[:, 1:]

        frames = jax.lax.map(part, jnp.arange(num_parts))  # [parts, B, MAX_FEATURES / 8, D]
        frames = jnp.moveaxis(frames, 0, 1).reshape(len(features), -1, frames.shape[-1])
        return frames[:, :total], num_frames

    def _frames(self, features, num_features, start):
        """Returns the frames of a part of the features, which begins at feature `start`."""
        x = features.astype(self.dtype)[..., None]  # [B, M, F, 1]
        x = jax.nn.relu(self.convolution(_mask_time(x, num_features, start)))
        stages = (
            (self.depthwise1, self.depthwise1_bias, self.pointwise1),
            (self.depthwise2, self.depthwise2_bias, self.pointwise2),
        )
        for kernel, bias, pointwise in stages:
            num_features, start = (num_features - 1) // 2 + 1, start // 2
            x = _mask_time(x, num_features, start)
            x = depthwise_stride2(x, kernel[...].astype(self.dtype))
            x = jax.nn.relu(pointwise(x + bias[...].astype(self.dtype)[None, None, None]))
        batch, num_times, bins, channels = x.shape
        x = jnp.swapaxes(x, 2, 3).reshape(batch, num_times, channels * bins)
        return self.output(x)


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
        key: jax.Array | None = None,
    ) -> jax.Array:
        """x [B, T, D], positions [R, D], padding [B, T] -> [B, T, D]. A `key` turns dropout on."""
        keys = split_key(key, 7)
        y = self.feed_forward1(self.feed_forward1_norm(x), key=keys[0])
        x = x + 0.5 * dropout(y, self.dropout, keys[1])
        y = self.attention(self.attention_norm(x), positions, padding, key=keys[2])
        x = x + dropout(y, self.dropout, keys[3])
        y = self.convolution(self.convolution_norm(x), padding)
        x = x + dropout(y, self.dropout, keys[4])
        y = self.feed_forward2(self.feed_forward2_norm(x), key=keys[5])
        x = x + 0.5 * dropout(y, self.dropout, keys[6])
        return self.output_norm(x)


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
        self.depthwise = nnx.Param(_uniform(rngs, (config.kernel_size, width), config.kernel_size))
        self.depthwise_bias = nnx.Param(jnp.zeros((width,))) if config.use_bias else None
        is_affine = config.convolution_norm == "affine"
        self.norm = Affine(width) if is_affine else LayerNorm(width, dtype=dtype, rngs=rngs)
        self.pointwise2 = linear(width, width)
        self.dtype = dtype

    def __call__(self, x: jax.Array, padding: jax.Array) -> jax.Array:
        """[B, T, D], padding [B, T] -> [B, T, D]."""
        x = jax.nn.glu(self.pointwise1(x))
        x = jnp.where(padding[:, :, None], jnp.zeros_like(x), x)
        x = depthwise(x, self.depthwise[...].astype(self.dtype))
        if self.depthwise_bias is not None:
            x = x + self.depthwise_bias[...].astype(self.dtype)[None, None]
        return self.pointwise2(jax.nn.silu(self.norm(x)))


def _mask_time(x, lengths, start=0):
    """Zeroes x [B, M, ...], whose first frame has the index `start`, outside 0..length - 1."""
    time = start + jnp.arange(x.shape[1])[None, :]
    padding = (time < 0) | (time >= lengths[:, None])
    return jnp.where(jnp.expand_dims(padding, range(2, x.ndim)), jnp.zeros_like(x), x)


def _uniform(rngs: nnx.Rngs, shape, fan_in: int):
    """Returns initial weights, uniform between -1 / sqrt(fan_in) and 1 / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)
