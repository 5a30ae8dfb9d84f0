"""The encoder's formulas in numpy and float64, one utterance and one frame at a time."""

import math

import jax
import models
import numpy as np


def linear(layer, x):
    y = x @ np.asarray(layer.kernel[...], np.float64)
    return y if layer.bias is None else y + np.asarray(layer.bias[...])


def norm(layer, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-5)
    return x * np.asarray(layer.scale[...]) + np.asarray(layer.bias[...])


def affine(layer, x):
    return x * np.asarray(layer.scale[...]) + np.asarray(layer.bias[...])


def silu(x):
    return x / (1 + np.exp(-x))


def strided(x, kernel):
    """3 x 3, stride 2, zero padded by one: x [M, F, I], kernel [3, 3, I, O]."""
    rows, columns = ((size - 1) // 2 + 1 for size in x.shape[:2])
    x = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    y = np.zeros((rows, columns, kernel.shape[-1]))
    for t, f in np.ndindex(rows, columns):
        y[t, f] = np.einsum("ijc,ijco->o", x[2 * t : 2 * t + 3, 2 * f : 2 * f + 3], kernel)
    return y


def subsample(layer, x):
    """[M, F] -> [T, D]."""
    x = strided(x[:, :, None], np.asarray(layer.convolution.kernel[...]))
    x = np.maximum(x + np.asarray(layer.convolution.bias[...]), 0)
    for kernel, bias, pointwise in (
        (layer.depthwise1, layer.depthwise1_bias, layer.pointwise1),
        (layer.depthwise2, layer.depthwise2_bias, layer.pointwise2),
    ):
        kernel = np.asarray(kernel[...])[..., None] * np.eye(x.shape[-1])
        x = np.maximum(linear(pointwise, strided(x, kernel) + np.asarray(bias[...])), 0)
    return linear(layer.output, x.transpose(0, 2, 1).reshape(len(x), -1))


def sinusoid(position, width):
    angles = position / 10000 ** (np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(width)


def attend(layer, x):
    """Transformer-XL attention [T, D] -> [T, D], a score at a time, within the layer's context."""
    layer = models.numpy_model(layer)
    num_frames, width = x.shape
    size = width // layer.num_heads
    query, key, value = (linear(each, x) for each in (layer.query, layer.key, layer.value))
    mixed = np.zeros_like(x)
    for h in range(layer.num_heads):
        head = slice(h * size, (h + 1) * size)
        u, v = np.asarray(layer.content_bias[h]), np.asarray(layer.position_bias[h])
        for t in range(num_frames):
            scores = np.full(num_frames, -np.inf)
            left, right = layer.context or (num_frames, num_frames)
            for s in range(max(0, t - left), min(num_frames, t + right + 1)):
                distance = linear(layer.position, sinusoid(t - s, width))[head]
                scores[s] = (query[t, head] + u) @ key[s, head] + (query[t, head] + v) @ distance
            weights = np.exp(scores / math.sqrt(size))
            mixed[t, head] = weights @ value[:, head] / weights.sum()
    return linear(layer.output, mixed)


def convolve(layer, x):
    """Pointwise, GLU, depthwise, norm, SiLU, pointwise: [T, D] -> [T, D]."""
    x, gate = np.split(linear(layer.pointwise1, x), 2, axis=-1)
    x, kernel = x / (1 + np.exp(-gate)), np.asarray(layer.depthwise[...])
    padded = np.pad(x, ((len(kernel) // 2, len(kernel) // 2), (0, 0)))
    x = np.stack([(padded[t : t + len(kernel)] * kernel).sum(0) for t in range(len(x))])
    if layer.depthwise_bias is not None:
        x = x + np.asarray(layer.depthwise_bias[...])
    normed = norm(layer.norm, x) if hasattr(layer.norm, "epsilon") else affine(layer.norm, x)
    return linear(layer.pointwise2, silu(normed))


def feed_forward(layer, x):
    return linear(layer.linear2, silu(linear(layer.linear1, x)))


def encode(encoder, x):
    """One utterance without padding, in float64: [M, F] -> [T, D]."""
    encoder = models.numpy_model(encoder)
    x = subsample(encoder.subsampling, x.astype(np.float64))
    if encoder.config.scale_input:
        x = x * math.sqrt(encoder.config.width)
    for i in range(encoder.config.num_layers):
        block = jax.tree.map(lambda leaf, i=i: leaf[i], encoder.blocks)
        x = x + 0.5 * feed_forward(block.feed_forward1, norm(block.feed_forward1_norm, x))
        x = x + attend(block.attention, norm(block.attention_norm, x))
        x = x + convolve(block.convolution, norm(block.convolution_norm, x))
        x = x + 0.5 * feed_forward(block.feed_forward2, norm(block.feed_forward2_norm, x))
        x = norm(block.output_norm, x)
    return x
