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


def strided(x, kernel, causal=False):
    """3 x 3, stride 2: x [M, F, I], kernel [3, 3, I, O].

    One zero on all sides; causal: two before and one after, in time and in frequency.
    """
    rows, columns = (size // 2 + 1 if causal else (size - 1) // 2 + 1 for size in x.shape[:2])
    x = np.pad(x, (*[(2 if causal else 1, 1)] * 2, (0, 0)))
    y = np.zeros((rows, columns, kernel.shape[-1]))
    for t, f in np.ndindex(rows, columns):
        y[t, f] = np.einsum("ijc,ijco->o", x[2 * t : 2 * t + 3, 2 * f : 2 * f + 3], kernel)
    return y


def subsample(layer, x, causal=False):
    """[M, F] -> [T, D]."""
    x = strided(x[:, :, None], np.asarray(layer.convolution.kernel[...]), causal)
    x = np.maximum(x + np.asarray(layer.convolution.bias[...]), 0)
    for kernel, bias, pointwise in (
        (layer.depthwise1, layer.depthwise1_bias, layer.pointwise1),
        (layer.depthwise2, layer.depthwise2_bias, layer.pointwise2),
    ):
        kernel = np.asarray(kernel[...])[..., None] * np.eye(x.shape[-1])
        x = np.maximum(linear(pointwise, strided(x, kernel, causal) + np.asarray(bias[...])), 0)
    return linear(layer.output, x.transpose(0, 2, 1).reshape(len(x), -1))


def sinusoid(position, width):
    angles = position / 10000 ** (np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(width)


def everything(t, s):
    return True


def band(left, right):
    """Frame t sees `left` frames before it and `right` after it (NeMo's "regular")."""
    return lambda t, s: t - left <= s <= t + right


def chunked(left, right):
    """Frame t sees its chunk, and the chunks before it that `left` frames are (NeMo's "limited").

    Chunks are numbered, and those of the two frames compared.
    """
    size = right + 1
    return lambda t, s: 0 <= t // size - s // size <= left // size


def unified(left, size, right):
    """Frame t of chunk k sees k size - left to k size + size - 1 + right (NeMo's "with_rc")."""
    return lambda t, s: t - t % size - left <= s <= t - t % size + size - 1 + right


def rule(config, context=None):
    """Which frame s a frame t sees, as sees(t, s), in a context of an encoder."""
    if config.attention_context is not None:
        return band(*config.attention_context)
    if config.chunked_contexts:
        return chunked(*(context or config.chunked_contexts[0]))
    return everything if context is None else unified(*context)


def attend(layer, x, sees=everything):
    """Transformer-XL attention [T, D] -> [T, D], a score at a time, where frame t sees frame s."""
    layer = models.numpy_model(layer)
    num_frames, width = x.shape
    size = width // layer.num_heads
    query, key, value = (linear(each, x) for each in (layer.query, layer.key, layer.value))
    distances = np.stack([sinusoid(d, width) for d in range(1 - num_frames, num_frames)])
    distances = linear(layer.position, distances)
    mixed = np.zeros_like(x)
    for h in range(layer.num_heads):
        head = slice(h * size, (h + 1) * size)
        u, v = np.asarray(layer.content_bias[h]), np.asarray(layer.position_bias[h])
        for t in range(num_frames):
            scores = np.full(num_frames, -np.inf)
            for s in range(num_frames):
                if sees(t, s):
                    distance = distances[t - s + num_frames - 1, head]
                    scores[s] = (query[t, head] + u) @ key[s, head] + (
                        query[t, head] + v
                    ) @ distance
            weights = np.exp(scores / math.sqrt(size))
            mixed[t, head] = weights @ value[:, head] / weights.sum()
    return linear(layer.output, mixed)


def convolve(layer, x, sides=None):
    """Pointwise, GLU, depthwise over (left, right) frames, norm, SiLU, pointwise: [T, D]."""
    x, gate = np.split(linear(layer.pointwise1, x), 2, axis=-1)
    x, kernel = x / (1 + np.exp(-gate)), np.asarray(layer.depthwise[...])
    padded = np.pad(x, (sides or (len(kernel) // 2, len(kernel) // 2), (0, 0)))
    x = np.stack([(padded[t : t + len(kernel)] * kernel).sum(0) for t in range(len(x))])
    if layer.depthwise_bias is not None:
        x = x + np.asarray(layer.depthwise_bias[...])
    normed = norm(layer.norm, x) if hasattr(layer.norm, "epsilon") else affine(layer.norm, x)
    return linear(layer.pointwise2, silu(normed))


def feed_forward(layer, x):
    return linear(layer.linear2, silu(linear(layer.linear1, x)))


def encode(encoder, x, context=None):
    """One utterance without padding, in float64: [M, F] -> [T, D]."""
    encoder, config = models.numpy_model(encoder), encoder.config
    sees = rule(config, context)
    x = subsample(encoder.subsampling, x.astype(np.float64), config.causal_subsampling)
    if config.scale_input:
        x = x * math.sqrt(config.width)
    for i in range(config.num_layers):
        block = jax.tree.map(lambda leaf, i=i: leaf[i], encoder.blocks)
        x = x + 0.5 * feed_forward(block.feed_forward1, norm(block.feed_forward1_norm, x))
        x = x + attend(block.attention, norm(block.attention_norm, x), sees)
        convolved = norm(block.convolution_norm, x)
        x = x + convolve(block.convolution, convolved, config.convolution_context)
        x = x + 0.5 * feed_forward(block.feed_forward2, norm(block.feed_forward2_norm, x))
        x = norm(block.output_norm, x)
    return x
