"""The FastConformer encoder (Rekesh et al., 2023, arXiv 2305.05084).

    features [B, M, F] -> Subsampling (8x) -> L x Block -> frames [B, T, D]

    Block: x + 1/2 FeedForward, x + RelativeAttention, x + Convolution, x + 1/2 FeedForward, norm

Padding never changes a result: time is masked before every convolution and in every attention.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from tdt_jax.config import EncoderConfig
from tdt_jax.models.attention import RelativeAttention, clipped, position_encoding
from tdt_jax.models.depthwise import depthwise, depthwise_stride2
from tdt_jax.models.layers import Affine, LayerNorm, dropout, padding_mask, split

PIECE = 8192  # features that are subsampled at a time


def subsampled_length(num_features):
    """Encoder frames T of `num_features` feature frames (an int or an array): 8x, rounded up."""
    for _ in range(3):
        num_features = (num_features - 1) // 2 + 1
    return num_features


class Subsampling(nnx.Module):
    """Depthwise-separable convolutions that take 8 feature frames to one encoder frame.

    conv 3x3 stride 2, ReLU; twice: depthwise 3x3 stride 2, pointwise, ReLU; linear. The flattening
    before the linear layer is channel-major, C x F/8.
    """

    def __init__(self, config: EncoderConfig, num_mels: int, *, dtype, rngs: nnx.Rngs):
        channels = config.subsampling_channels
        options = dict(dtype=dtype, rngs=rngs)
        self.convolution = nnx.Conv(1, channels, (3, 3), strides=2, padding=1, **options)
        self.depthwise1 = nnx.Param(_uniform(rngs, (3, 3, channels), 9))
        self.depthwise1_bias = nnx.Param(jnp.zeros((channels,)))
        self.pointwise1 = nnx.Linear(channels, channels, **options)
        self.depthwise2 = nnx.Param(_uniform(rngs, (3, 3, channels), 9))
        self.depthwise2_bias = nnx.Param(jnp.zeros((channels,)))
        self.pointwise2 = nnx.Linear(channels, channels, **options)
        self.output = nnx.Linear(channels * subsampled_length(num_mels), config.width, **options)
        self.dtype = dtype

    def __call__(self, features, num_features):
        """[B, M, F], [B] -> [B, T, D], [B]. Long features go through in pieces, to save memory."""
        num_frames = subsampled_length(num_features)
        size, total = features.shape[1], subsampled_length(features.shape[1])
        if size <= PIECE + 8:
            return self._frames(features, num_features, 0), num_frames
        num_pieces = -(-size // PIECE)
        # Frame t sees the features 8t - 7 to 8t + 7: a piece starts 8 features early.
        features = jnp.pad(features, ((0, 0), (8, num_pieces * PIECE - size), (0, 0)))

        def piece(index):
            part = jax.lax.dynamic_slice_in_dim(features, index * PIECE, PIECE + 8, axis=1)
            return self._frames(part, num_features, index * PIECE - 8)[:, 1:]

        frames = jax.lax.map(piece, jnp.arange(num_pieces))  # [pieces, B, PIECE / 8, D]
        frames = jnp.moveaxis(frames, 0, 1).reshape(len(features), -1, frames.shape[-1])
        return frames[:, :total], num_frames

    def _frames(self, features, num_features, start):
        """The frames of a piece of the features, which begins at feature `start`."""
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


def _mask_time(x, lengths, start=0):
    """Zero x [B, M, ...], whose first frame is number `start`, outside 0..length - 1."""
    time = start + jnp.arange(x.shape[1])[None, :]
    padding = (time < 0) | (time >= lengths[:, None])
    return jnp.where(jnp.expand_dims(padding, range(2, x.ndim)), jnp.zeros_like(x), x)


def _uniform(rngs: nnx.Rngs, shape, fan_in: int):
    bound = 1 / math.sqrt(fan_in)
    return jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)


class FeedForward(nnx.Module):
    """Linear, SiLU, dropout, linear."""

    def __init__(self, config: EncoderConfig, *, dtype, rngs: nnx.Rngs):
        options = dict(use_bias=config.use_bias, dtype=dtype, rngs=rngs)
        hidden = config.feed_forward_factor * config.width
        self.linear1 = nnx.Linear(config.width, hidden, **options)
        self.linear2 = nnx.Linear(hidden, config.width, **options)
        self.dropout = config.dropout

    def __call__(self, x, *, key=None):
        """[B, T, D] -> [B, T, D]."""
        return self.linear2(dropout(jax.nn.silu(self.linear1(x)), self.dropout, key))


class Convolution(nnx.Module):
    """Pointwise, GLU, depthwise along time, LayerNorm (or affine), SiLU, pointwise."""

    def __init__(self, config: EncoderConfig, *, dtype, rngs: nnx.Rngs):
        width = config.width
        options = dict(use_bias=config.use_bias, dtype=dtype, rngs=rngs)
        self.pointwise1 = nnx.Linear(width, 2 * width, **options)
        self.depthwise = nnx.Param(_uniform(rngs, (config.kernel_size, width), config.kernel_size))
        self.depthwise_bias = nnx.Param(jnp.zeros((width,))) if config.use_bias else None
        is_affine = config.convolution_norm == "affine"
        self.norm = Affine(width) if is_affine else LayerNorm(width, dtype=dtype, rngs=rngs)
        self.pointwise2 = nnx.Linear(width, width, **options)
        self.dtype = dtype

    def __call__(self, x, padding):
        """[B, T, D], padding [B, T] -> [B, T, D]."""
        x = jax.nn.glu(self.pointwise1(x))
        x = jnp.where(padding[:, :, None], jnp.zeros_like(x), x)
        x = depthwise(x, self.depthwise[...].astype(self.dtype))
        if self.depthwise_bias is not None:
            x = x + self.depthwise_bias[...].astype(self.dtype)[None, None]
        return self.pointwise2(jax.nn.silu(self.norm(x)))


class Block(nnx.Module):
    """One Conformer block (Gulati et al., 2020): feed-forwards around attention and convolution."""

    def __init__(self, config: EncoderConfig, *, dtype, rngs: nnx.Rngs):
        def norm():
            return LayerNorm(config.width, dtype=dtype, rngs=rngs)

        options = dict(dtype=dtype, rngs=rngs)
        self.feed_forward1_norm, self.feed_forward1 = norm(), FeedForward(config, **options)
        self.attention_norm, self.attention = norm(), RelativeAttention(config, **options)
        self.convolution_norm, self.convolution = norm(), Convolution(config, **options)
        self.feed_forward2_norm, self.feed_forward2 = norm(), FeedForward(config, **options)
        self.output_norm = norm()
        self.dropout = config.dropout

    def __call__(self, x, positions, padding, *, key=None):
        """x [B, T, D], positions [R, D], padding [B, T] -> [B, T, D]."""
        keys = split(key, 7)
        y = self.feed_forward1(self.feed_forward1_norm(x), key=keys[0])
        x = x + 0.5 * dropout(y, self.dropout, keys[1])
        y = self.attention(self.attention_norm(x), positions, padding, key=keys[2])
        x = x + dropout(y, self.dropout, keys[3])
        y = self.convolution(self.convolution_norm(x), padding)
        x = x + dropout(y, self.dropout, keys[4])
        y = self.feed_forward2(self.feed_forward2_norm(x), key=keys[5])
        x = x + 0.5 * dropout(y, self.dropout, keys[6])
        return self.output_norm(x)


class Encoder(nnx.Module):
    """Subsampling and a stack of blocks; the blocks' parameters are stacked, [L, ...]."""

    def __init__(self, config: EncoderConfig, num_mels: int, *, dtype, rngs: nnx.Rngs):
        self.subsampling = Subsampling(config, num_mels, dtype=dtype, rngs=rngs)
        keys = jax.random.split(rngs.params(), config.num_layers)
        self.blocks = jax.vmap(lambda key: Block(config, dtype=dtype, rngs=nnx.Rngs(key)))(keys)
        self.config = config
        self.dtype = dtype

    def __call__(self, features, num_features, *, key=None, prepare=lambda x, block: (x, block)):
        """Encode features [B, M, F] of lengths [B] into frames [B, T, D] of lengths [B].

        Frames beyond an utterance's length are zero. A `key` turns dropout on. `prepare` is given
        the input and the parameters of each block before they are used, to place or gather what is
        split among devices.
        """
        input_key, block_key = split(key, 2)
        x, num_frames = self.subsampling(features, num_features)
        if self.config.scale_input:
            x = x * math.sqrt(self.config.width)
        x = dropout(x, self.config.dropout, input_key)
        left, right = clipped(self.config.attention_context, x.shape[1])
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
