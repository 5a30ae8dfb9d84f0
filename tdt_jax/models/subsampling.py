"""Subsampling: convolutions that turn 8 feature frames into one encoder frame, causal or not."""

import functools
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from tdt_jax.config import EncoderConfig
from tdt_jax.models.depthwise import depthwise_stride2
from tdt_jax.models.layers import mask_time, uniform_weights

MAX_FEATURES = 8192  # feature frames that are subsampled at once
MARGIN = 7  # features on both sides of feature 8t that frame t depends on

Length = TypeVar("Length", int, jax.Array)


def subsampled_length(num_features: Length, *, causal: bool = False) -> Length:
    """Returns the encoder frames T of `num_features` feature frames.

    That is an eighth, rounded up; with causal subsampling one more, unless M = 8k + 1 (or 0).
    """
    if not causal:
        return (num_features + MARGIN) // 8
    num_frames = (num_features + 2 * MARGIN) // 8  # 1 for no features
    if isinstance(num_features, int):
        return min(num_features, num_frames)
    return jnp.minimum(num_features, num_frames)


class Subsampling(nnx.Module):
    """Depthwise-separable convolutions that turn 8 feature frames into one encoder frame.

    conv 3x3 stride 2, ReLU; twice: depthwise 3x3 stride 2, pointwise, ReLU; linear. The flattening
    before the linear layer is channel-major, C x F/8.

    Frame t depends on the features 8t - 7 to 8t + 7: each stage begins with a zero in time and in
    frequency. A causal one begins with two, so that its frame t depends on the features 8t - 14 to
    8t: as if 7 features that do not exist came before the utterance.
    """

    def __init__(self, config: EncoderConfig, num_mels: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        channels = config.subsampling_channels
        linear = functools.partial(nnx.Linear, dtype=dtype, rngs=rngs)
        self.convolution = nnx.Conv(
            1, channels, (3, 3), strides=2, padding="VALID", dtype=dtype, rngs=rngs
        )
        self.depthwise1 = nnx.Param(uniform_weights(rngs, (3, 3, channels), 9))
        self.depthwise1_bias = nnx.Param(jnp.zeros((channels,)))
        self.pointwise1 = linear(channels, channels)
        self.depthwise2 = nnx.Param(uniform_weights(rngs, (3, 3, channels), 9))
        self.depthwise2_bias = nnx.Param(jnp.zeros((channels,)))
        self.pointwise2 = linear(channels, channels)
        bins = subsampled_bins(num_mels, causal=config.causal_subsampling)
        self.output = linear(channels * bins, config.width)
        if config.causal_subsampling:
            # The first frame may depend on a single, masked feature, and attend to itself alone.
            # Were it zero in all blocks, their LayerNorms' gradients would multiply to infinity.
            bias = uniform_weights(rngs, (config.width,), channels * bins)
            self.output.bias = nnx.Param(bias)
        self.num_mels = num_mels
        self.causal = config.causal_subsampling
        self.dtype = dtype

    def __call__(self, features: jax.Array, num_features: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, M, F], [B] -> [B, T, D], [B]; processes long features in parts, to save memory."""
        num_frames = subsampled_length(num_features, causal=self.causal)
        size = features.shape[1]
        total = subsampled_length(size, causal=self.causal)
        num_parts = 1 if size <= MAX_FEATURES + 8 else -(-8 * total // MAX_FEATURES)
        part_size = 8 * total if num_parts == 1 else MAX_FEATURES
        before = MARGIN * (1 + self.causal)
        after = max(0, num_parts * part_size + MARGIN - before - size)
        features = jnp.pad(features, ((0, 0), (before, after), (0, 0)))
        if num_parts == 1:
            return self.frames(features[:, : part_size + MARGIN], num_features, 0), num_frames

        def part(index):
            start = index * part_size
            part = jax.lax.dynamic_slice_in_dim(features, start, part_size + MARGIN, axis=1)
            return self.frames(part, num_features, start // 8)

        frames = jax.lax.map(part, jnp.arange(num_parts))  # [parts, B, MAX_FEATURES / 8, D]
        frames = jnp.moveaxis(frames, 0, 1).reshape(features.shape[0], -1, frames.shape[-1])
        return frames[:, :total], num_frames

    def frames(
        self, features: jax.Array, num_features: jax.Array, first: jax.Array | int
    ) -> jax.Array:
        """Returns the frames `first`, ..., `first` + n - 1 of utterances: [B, n, D].

        Args:
          features: [B, 7 + 8n, F], beginning with the first that frame `first` depends on.
          num_features: [B], of the utterances.
          first: [] or [B].
        """
        x = features.astype(self.dtype)[..., None]  # [B, M, F, 1]
        stages = (
            (self.convolution, lambda x: x),
            (_Depthwise(self.depthwise1, self.depthwise1_bias), self.pointwise1),
            (_Depthwise(self.depthwise2, self.depthwise2_bias), self.pointwise2),
        )
        zeros = 1 + self.causal  # before time and frequency begin
        for stride, (convolve, pointwise) in zip((8, 4, 2), stages, strict=True):
            x = mask_time(x, num_features, stride * first - (stride - 1) * zeros)
            x = jnp.pad(x, ((0, 0), (0, 0), (zeros, 1), (0, 0)))
            x = jax.nn.relu(pointwise(convolve(x)))
            num_features = _halved(num_features, self.causal)
        batch, num_times, bins, channels = x.shape
        x = jnp.swapaxes(x, 2, 3).reshape(batch, num_times, channels * bins)
        return self.output(x)


class _Depthwise(NamedTuple):
    """A depthwise convolution of stride 2 with its bias."""

    kernel: nnx.Param
    bias: nnx.Param

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, bias = (each[...].astype(x.dtype) for each in self)
        return depthwise_stride2(x, kernel) + bias[None, None, None]


def subsampled_bins(num_mels: int, *, causal: bool) -> int:
    """Returns the bins that three stages of subsampling leave of `num_mels`."""
    for _ in range(3):
        num_mels = _halved(num_mels, causal)
    return num_mels


def _halved(length: Length, causal: bool) -> Length:
    """Returns the outputs of a stage of subsampling for `length` inputs."""
    return length // 2 + 1 if causal else (length - 1) // 2 + 1
