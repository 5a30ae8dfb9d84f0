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
from tdt_jax.depthwise import depthwise, depthwise_stride2

MASKED = -1e9  # attention score of a masked frame


def subsampled_length(num_features):
    """Encoder frames T of `num_features` feature frames (an int or an array): 8x, rounded up."""
    for _ in range(3):
        num_features = (num_features - 1) // 2 + 1
    return num_features


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
        """[B, M, F], [B] -> [B, T, D], [B]."""
        x = _mask_time(features.astype(self.dtype)[..., None], num_features)  # [B, M, F, 1]
        x = jax.nn.relu(self.convolution(x))
        num_frames = (num_features - 1) // 2 + 1
        stages = (
            (self.depthwise1, self.depthwise1_bias, self.pointwise1),
            (self.depthwise2, self.depthwise2_bias, self.pointwise2),
        )
        for kernel, bias, pointwise in stages:
            x = depthwise_stride2(_mask_time(x, num_frames), kernel[...].astype(self.dtype))
            x = jax.nn.relu(pointwise(x + bias[...].astype(self.dtype)[None, None, None]))
            num_frames = (num_frames - 1) // 2 + 1
        batch, num_times, bins, channels = x.shape
        x = jnp.swapaxes(x, 2, 3).reshape(batch, num_times, channels * bins)
        return self.output(x), num_frames


def _mask_time(x, lengths):
    """Zero x [B, M, ...] beyond each utterance's length."""
    padding = padding_mask(lengths, x.shape[1])
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


def position_encoding(num_frames: int, width: int):
    """Sinusoids [2T - 1, D] of the relative positions T - 1, ..., 0, ..., -(T - 1)."""
    positions = jnp.arange(num_frames - 1, -num_frames, -1, dtype=jnp.float32)
    rates = jnp.exp(jnp.arange(0, width, 2, dtype=jnp.float32) * (-math.log(10000.0) / width))
    angles = positions[:, None] * rates[None, :]
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(-1, width)


def relative_shift(scores):
    """[..., T, 2T - 1] by relative position -> [..., T, T] by key: out[t, s] = in[t, T-1-t+s]."""
    *batch, num_frames, num_positions = scores.shape
    scores = jnp.pad(scores, [(0, 0)] * (len(batch) + 1) + [(1, 0)])
    scores = scores.reshape(*batch, num_positions + 1, num_frames)[..., 1:, :]
    return scores.reshape(*batch, num_frames, num_positions)[..., :num_frames]


class RelativeAttention(nnx.Module):
    """Self-attention over content and relative position (Transformer-XL, Dai et al., 2019).

    score[t, s] = ((q_t + u) . k_s + (q_t + v) . p_{t - s}) / sqrt(K)
    """

    def __init__(self, config: EncoderConfig, *, dtype, rngs: nnx.Rngs):
        width, heads = config.width, config.num_heads
        options = dict(use_bias=config.use_bias, dtype=dtype, rngs=rngs)
        self.query = nnx.Linear(width, width, **options)
        self.key = nnx.Linear(width, width, **options)
        self.value = nnx.Linear(width, width, **options)
        self.output = nnx.Linear(width, width, **options)
        self.position = nnx.Linear(width, width, use_bias=False, dtype=dtype, rngs=rngs)
        self.content_bias = nnx.Param(jnp.zeros((heads, width // heads)))  # u
        self.position_bias = nnx.Param(jnp.zeros((heads, width // heads)))  # v
        self.num_heads = heads
        self.dropout = config.attention_dropout
        self.dtype = dtype

    def __call__(self, x, positions, padding, *, key=None):
        """x [B, T, D], positions [2T - 1, D], padding [B, T] -> [B, T, D]."""

        def heads(y):
            return y.reshape(*y.shape[:-1], self.num_heads, -1)  # [..., H, K]

        def bias(parameter):
            return parameter[...].astype(self.dtype)[None, None]

        query = heads(self.query(x))
        scale = 1 / math.sqrt(query.shape[-1])
        content = jnp.einsum("bthk,bshk->bhts", query + bias(self.content_bias), heads(self.key(x)))
        position = jnp.einsum(
            "bthk,rhk->bhtr", query + bias(self.position_bias), heads(self.position(positions))
        )
        scores = ((content + relative_shift(position)) * scale).astype(jnp.float32)
        weights = jax.nn.softmax(jnp.where(padding[:, None, None, :], MASKED, scores), axis=-1)
        weights = jnp.where(padding[:, None, :, None], 0.0, weights).astype(self.dtype)
        weights = dropout(weights, self.dropout, key)
        mixed = jnp.einsum("bhts,bshk->bthk", weights, heads(self.value(x)))
        return self.output(mixed.reshape(x.shape))


class Convolution(nnx.Module):
    """Pointwise, GLU, depthwise along time, LayerNorm, SiLU, pointwise."""

    def __init__(self, config: EncoderConfig, *, dtype, rngs: nnx.Rngs):
        width = config.width
        options = dict(use_bias=config.use_bias, dtype=dtype, rngs=rngs)
        self.pointwise1 = nnx.Linear(width, 2 * width, **options)
        self.depthwise = nnx.Param(_uniform(rngs, (config.kernel_size, width), config.kernel_size))
        self.depthwise_bias = nnx.Param(jnp.zeros((width,))) if config.use_bias else None
        self.norm = layer_norm(width, dtype=dtype, rngs=rngs)
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
            return layer_norm(config.width, dtype=dtype, rngs=rngs)

        options = dict(dtype=dtype, rngs=rngs)
        self.feed_forward1_norm, self.feed_forward1 = norm(), FeedForward(config, **options)
        self.attention_norm, self.attention = norm(), RelativeAttention(config, **options)
        self.convolution_norm, self.convolution = norm(), Convolution(config, **options)
        self.feed_forward2_norm, self.feed_forward2 = norm(), FeedForward(config, **options)
        self.output_norm = norm()
        self.dropout = config.dropout

    def __call__(self, x, positions, padding, *, key=None):
        """x [B, T, D], positions [2T - 1, D], padding [B, T] -> [B, T, D]."""
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

    def __call__(self, features, num_features, *, key=None):
        """Encode features [B, M, F] of lengths [B] into frames [B, T, D] of lengths [B].

        Frames beyond an utterance's length are zero. A `key` turns dropout on.
        """
        input_key, block_key = split(key, 2)
        x, num_frames = self.subsampling(features, num_features)
        if self.config.scale_input:
            x = x * math.sqrt(self.config.width)
        x = dropout(x, self.config.dropout, input_key)
        positions = position_encoding(x.shape[1], self.config.width).astype(self.dtype)
        padding = padding_mask(num_frames, x.shape[1])

        def apply(x, layer):
            block, key = layer
            return block(x, positions, padding, key=key), None

        keys = None if key is None else jax.random.split(block_key, self.config.num_layers)
        body = jax.checkpoint(apply) if self.config.remat else apply
        x, _ = jax.lax.scan(body, x, (self.blocks, keys), unroll=self.config.unroll)
        return _mask_time(x, num_frames), num_frames
